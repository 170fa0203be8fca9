"""A complete small prior of background errors for tests: principal components as latent, a fitted Gaussian, a silent network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import small_model
from genda.checkpoint import Model, UNetConfig
from genda.diffusion.increments import IncrementDenoiser
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.grid import LatLonGrid
from genda.latent_card import AutoencoderSpec, IncrementArchitecture
from genda.latent_model import (
    AutoencoderModel,
    LatentModel,
    build_autoencoder,
    build_increment_network,
    save_latent_model,
)
from genda.methods.zonal_covariance import ZonalCovariance
from genda.state import Normalisation, State

ERROR = 0.3
"""Standard deviation of the small model's backgrounds' errors, normalised."""


def latent_model(
    channels: tuple[str, ...], grid: LatLonGrid, normalisation: Normalisation, errors: Tensor, latent: int, modes: int
) -> LatentModel:
    """For errors (sample, channel, lat, lon) in normalised units, of mean zero."""
    spec = AutoencoderSpec(kind="linear", latent=latent)
    autoencoder = build_autoencoder(spec, len(channels), grid)
    weights = 1 / errors.square().mean(dim=(0, 2, 3))
    autoencoder.start_from(errors, weights)
    space = AutoencoderModel(
        autoencoder.eval().requires_grad_(False), weights, normalisation, channels, grid, spec, {"data": "test"}
    )
    coarse = grid.coarsened(2)
    with torch.no_grad():
        held = autoencoder.encode(errors).mean
        floor = (autoencoder.decode(held) - errors).square().mean(dim=(0, 2, 3))
    reach = space.reach.view(-1, 1, 1)
    scale = (held * reach).square().mean().sqrt() / reach
    covariance = ZonalCovariance.fit(held / scale, coarse, 1.4e7)
    base = ZonalGaussian.truncated(list(covariance.spectra), covariance.shape, modes)
    architecture = IncrementArchitecture(unet=UNetConfig(base=8, multipliers=(1,), blocks=1, patch=1, head=None))
    torch.manual_seed(0)
    network = build_increment_network(architecture, spec, channels, coarse.shape)
    denoiser = IncrementDenoiser(network, base).eval().requires_grad_(False)
    mean = torch.zeros(1, latent, *coarse.shape)
    static = torch.zeros(0, *coarse.shape)
    return LatentModel(
        space, denoiser, mean, scale[None], static, floor[None], (24,), architecture, card={"data": "test"}
    )


def saved(directory: Path) -> Path:
    """On the states of :mod:`small_model`, on disk."""
    model = small_model.build()
    fitted = latent_model(model.channels, model.grid, model.normalisation, errors(model), 20, 300)
    save_latent_model(directory, fitted)
    return directory


def errors(model: Model) -> Tensor:
    """What the prior is fitted to, (sample, channel, lat, lon), normalised."""
    drawn = ERROR * model.normalisation.normalise(*_values(small_model.states(120, seed=3)))
    return drawn - drawn.mean(dim=0)


def background(truth: State) -> State:
    """A forecast of a truth with such an error."""
    mean = small_model.states(200).values.mean(dim=0)
    error = ERROR * (small_model.states(2, seed=4).values[0] - mean)
    return State(truth.values + error, truth.channels, truth.grid, truth.times)


def _values(states: State) -> tuple[Tensor, np.ndarray]:
    return states.values, states.times
