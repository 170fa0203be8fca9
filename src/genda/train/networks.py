"""Simulated observations of training errors, as a network that is shown observations sees them.

Each sample has columns at random points, in a number drawn log-uniformly between two shares of the grid; some samples have noise on
their values, and from some all observations are hidden, so that the same network is the prior of what is not observed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genda.diffusion.noise import derived_seed
from genda.train.config import ObservationConfig


def drawn_maps(error: Tensor, variance: Tensor, seeds: Sequence[int], config: ObservationConfig) -> tuple[Tensor, Tensor]:
    """Values and density as :func:`genda.diffusion.observed_maps.observed_maps` gives them, each (batch, channel, lat, lon).

    Args:
        error: truth less background in normalised anomalies, shape (batch, channel, lat, lon).
        variance: of background errors, (batch, channel).
        seeds: one for each sample.
        config: how many, how noisy, how often hidden.
    """
    values, densities = [], []
    for x, v, seed in zip(error, variance, seeds, strict=True):
        generator = torch.Generator().manual_seed(derived_seed(seed, "observations"))
        hidden, noisy, position = torch.rand(3, generator=generator).tolist()
        low, high = (math.log(share) for share in config.density)
        share = math.exp(low + position * (high - low))
        columns = (torch.rand(x.shape[1:], generator=generator) < share) & (hidden >= config.hidden)
        noise = config.noise * (noisy < config.noisy)
        seen = x + noise * torch.randn(x.shape, generator=generator)
        deviation = v.sqrt().view(-1, 1, 1)
        values.append(columns * seen / deviation)
        densities.append(columns * (deviation**2 / (deviation**2 + noise**2)))
    return torch.stack(values), torch.stack(densities)
