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
class SimulatedNetworks:
    """How errors are observed.

    Attributes:
        variance: of background errors, shape (lead, channel).
        config: how many are observed, how noisy, how often none is shown.
        patch: of the latent.
    """

    variance: Tensor
    config: ObservationConfig
    patch: int

    def maps(self, samples: Latents, index: NDArray[np.int64], seeds: Sequence[int] | None) -> Tensor:
        """As :func:`genda.nn.observation_encoder.folded` gives them, (batch, k, lat, lon).

        Args:
            samples: whose errors are observed.
            index: which of them.
            seeds: of points and noise, one a sample; None observes nothing.
        """
        chosen = torch.as_tensor(index)
        errors = samples.states(samples.pairs.truth, chosen) - samples.states(samples.pairs.background, chosen)
        if seeds is None:
            return folded(torch.zeros_like(errors), torch.zeros_like(errors), self.patch)
        variances = self.variance[samples.lead[chosen]]
        drawn = [self._drawn(*each) for each in zip(errors, variances, seeds, strict=True)]
        values, density = (torch.stack(part) for part in zip(*drawn, strict=True))
        return folded(values, density, self.patch)

    def _drawn(self, error: Tensor, variance: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Values and density of one sample as :func:`genda.diffusion.observed_maps.observed_maps` gives them."""
        config, generator = self.config, torch.Generator().manual_seed(derived_seed(seed, "observations"))
        hidden, noisy, position = torch.rand(3, generator=generator).tolist()
        low, high = (math.log(share) for share in config.density)
        columns = torch.rand(error.shape[1:], generator=generator) < math.exp(low + position * (high - low))
        columns = columns & (hidden >= config.hidden)
        noise = config.noise * (noisy < config.noisy)
        seen = error + noise * torch.randn(error.shape, generator=generator)
        background = variance.view(-1, 1, 1)
        return columns * seen / background.sqrt(), columns * (background / (background + noise**2))
