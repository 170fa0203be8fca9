"""Forecast models: what carries a state from one analysis to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the nature run is JAX and starts without torch
    from torch import Tensor


class ForecastModel(Protocol):
    """Advances states in the model's own units; members never interact."""

    shape: tuple[int, int, int]

    def step(self, state: Tensor, dt: float) -> Tensor:
        """States (..., channel, lat, lon) a time ``dt`` later, in the model's own units of time; differentiable."""
        ...
