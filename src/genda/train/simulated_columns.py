"""Simulated observations of training errors, as a network that is shown observations sees them.

Each sample has columns at random points, in a number drawn log-uniformly between two shares of the grid; some samples have noise on
their values, and from some all observations are hidden, so that the same network is the prior of what is not observed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.diffusion.noise import derived_seed
from genda.nn.observation_encoder import folded
from genda.train.config import ObservationConfig
from genda.train.latents import Latents


@dataclass(frozen=True)
class Columns:
    """Columns of all channels at grid points, of a batch of errors.

    Attributes:
        values: errors of the background with noise, where observed and where not, shape (batch, channel, lat, lon).
        columns: where they are, Boolean of shape (batch, 1, lat, lon).
        noise: standard deviation in units of each channel's, shape (batch,).
    """

    values: Tensor
    columns: Tensor
    noise: Tensor


@dataclass(frozen=True)
class SimulatedColumns:
    """How errors are observed.

    Attributes:
        variance: of background errors, shape (lead, channel).
        config: how many are observed, how noisy, how often none is shown.
        patch: of the latent.
    """

    variance: Tensor
    config: ObservationConfig
    patch: int

    @property
    def noises(self) -> tuple[float, ...]:
        """Standard deviations of the noise that samples may have."""
        return (0.0, self.config.noise)

    def columns(self, samples: Latents, index: NDArray[np.int64], seeds: Sequence[int]) -> Columns:
        """What is observed of samples; points and noise by a seed for each."""
        chosen = torch.as_tensor(index)
        errors = samples.states(samples.pairs.truth, chosen) - samples.states(samples.pairs.background, chosen)
        drawn = [self._drawn(*each) for each in zip(errors, seeds, strict=True)]
        values, columns, noise = zip(*drawn, strict=True)
        return Columns(torch.stack(values), torch.stack(columns), torch.tensor(noise))

    def maps(self, columns: Columns, lead: Tensor) -> Tensor:
        """As :func:`genda.nn.observation_encoder.folded` gives them, (batch, k, lat, lon).

        Values and density are those of :func:`genda.diffusion.observed_maps.observed_maps`.

        Args:
            columns: what is observed.
            lead: of each sample, shape (batch,).
        """
        background = self.variance[lead][..., None, None]
        share = background / (background + columns.noise.view(-1, 1, 1, 1) ** 2)
        return folded(columns.columns * columns.values / background.sqrt(), columns.columns * share, self.patch)

    def nothing(self, samples: Latents, count: int) -> Tensor:
        """The maps of ``count`` samples of which nothing is observed."""
        values = torch.zeros(count, *samples.pairs.truth.shape[1:])
        return folded(values, values, self.patch)

    def _drawn(self, error: Tensor, seed: int) -> tuple[Tensor, Tensor, float]:
        config, generator = self.config, torch.Generator().manual_seed(derived_seed(seed, "observations"))
        hidden, noisy, position = torch.rand(3, generator=generator).tolist()
        low, high = (math.log(share) for share in config.density)
        columns = torch.rand(error.shape[1:], generator=generator) < math.exp(low + position * (high - low))
        columns = columns & (hidden >= config.hidden)
        noise = config.noise * (noisy < config.noisy)
        return error + noise * torch.randn(error.shape, generator=generator), columns.unsqueeze(0), noise
