"""A complete small model for tests: random homogeneous fields, a fitted spherical base, an untrained little network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genda.checkpoint import Architecture, Model, UNetConfig, build_denoiser, build_network, save_model
from genda.diffusion.gaussian import SphericalGaussian
from genda.grid import LatLonGrid
from genda.sphere import SphericalTransform
from genda.state import Normalisation, State
from genda.variables import channels as parse_channels

CHANNELS = ("z850", "z500", "t850", "t500", "u500", "v500", "t2m")
GRID = LatLonGrid.gaussian(16, 32)
_TYPICAL = {
    "z": (3e4, 600.0),
    "t": (265.0, 3.0),
    "u": (8.0, 6.0),
    "v": (0.0, 6.0),
    "q": (4e-3, 1e-3),
    "t2m": (283.0, 3.0),
}


def states(count: int, seed: int = 0) -> State:
    """Smooth random states around plausible means, 12-hourly."""
    transform = SphericalTransform(GRID)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, len(CHANNELS), *GRID.shape, generator=generator)
    smooth = (1 + (torch.arange(transform.lmax) / 3.0) ** 4).rsqrt().view(-1, 1)
    fields = transform.synthesis(transform.analysis(noise) * smooth)
    fields = fields / fields.std()
    typical = [_TYPICAL[c.field.id] for c in parse_channels(CHANNELS)]
    mean, std = (torch.tensor([row[k] for row in typical]).view(-1, 1, 1) for k in (0, 1))
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(12, "h")
    return State(mean + std * fields, CHANNELS, GRID, times)


def build() -> Model:
    """The model, fitted to 200 states; its untrained network corrects nothing yet."""
    training = states(200)
    normalisation = Normalisation.fit(training, harmonics=0)
    base = SphericalGaussian.fit(normalisation.normalise(training.values, training.times), GRID)
    network = UNetConfig(base=8, multipliers=(1, 2), blocks=1, head=None)
    architecture = Architecture(network=network, static=("land_sea_mask",))
    torch.manual_seed(0)
    mask = (torch.rand(1, *GRID.shape) > 0.7).float()
    denoiser = build_denoiser(architecture, build_network(architecture, len(CHANNELS), GRID), base, mask)
    return Model(denoiser.eval().requires_grad_(False), normalisation, CHANNELS, GRID, architecture, {"data": "test"})


def saved(directory: Path) -> Path:
    """The model on disk."""
    save_model(directory, build())
    return directory
