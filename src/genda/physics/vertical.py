r"""Columns of air on uneven pressure levels: derivatives, and the integrals of continuity and hydrostatics as matrices.

With levels p_1 > … > p_n from the ground up, above a flat ground at the pressure p_s:

    ∂x/∂p            three-point differences of second order in ln p, in which temperature and wind are near linear
    ∫_0^p x dp'      trapezoids in p; x is constant from the lowest level down to p_s and falls linearly to nothing at p = 0
    ∫_p^p_s x dln p' trapezoids in ln p; x is constant from the lowest level down to p_s

The divergence above the highest level is unknown; falling to nothing there keeps the stratosphere from carrying on the outflow
below it.

References:
    Simmons and Burridge 1981, Mon. Weather Rev. 109, 758 (integrals); O'Brien 1970, J. Appl. Meteorol. 9, 197 (closure).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from genda.physics.constants import STANDARD_PRESSURE
from genda.physics.derivatives import derivative_weights

LEAST_LEVELS = 3


@dataclass(frozen=True)
class Column:
    """Pressure levels above a flat ground.

    Attributes:
        pressure: Pa, from the ground up.
        surface: p_s, Pa.

    Raises:
        ValueError: for fewer than three levels, or ones that do not fall from p_s upward.
    """

    pressure: tuple[float, ...]
    surface: float = STANDARD_PRESSURE

    def __post_init__(self) -> None:
        if len(self.pressure) < LEAST_LEVELS:
            raise ValueError(f"levels: found {len(self.pressure)}, expected at least {LEAST_LEVELS}")
        if (np.diff(self.pressure) >= 0).any() or not 0 < self.pressure[-1] or self.pressure[0] > self.surface:
            found = ", ".join(f"{p:g}" for p in self.pressure)
            raise ValueError(
                f"levels: found {found} Pa, expected falling pressures between the surface ({self.surface:g} Pa) and 0"
            )

    def derivative(self, x: Tensor) -> Tensor:
        """∂x/∂p of x (..., level, lat, lon), its units per Pa."""
        return _product(self._differences, x)

    def mass_above(self, x: Tensor) -> Tensor:
        """∫_0^p x dp' at every level, shape (..., level, lat, lon)."""
        return _product(self._mass_above[:-1], x)

    def mass(self, x: Tensor) -> Tensor:
        """∫_0^p_s x dp', shape (..., 1, lat, lon)."""
        return _product(self._mass_above[-1:], x)

    def depth_below(self, x: Tensor) -> Tensor:
        """∫_p^p_s x dln p' at every level, shape (..., level, lat, lon)."""
        return _product(self._depth_below, x)

    def broadcast(self, like: Tensor) -> Tensor:
        """The pressures as (level, 1, 1)."""
        return torch.as_tensor(self.pressure, dtype=like.dtype, device=like.device).view(-1, 1, 1)

    @cached_property
    def _differences(self) -> Tensor:
        height, levels = np.log(self.pressure), len(self.pressure)
        weights = np.zeros((levels, levels))
        for level in range(levels):
            first = min(max(level - 1, 0), levels - 3)
            near = slice(first, first + 3)
            weights[level, near] = derivative_weights(height[near], level - first) / self.pressure[level]
        return torch.as_tensor(weights)

    @cached_property
    def _mass_above(self) -> Tensor:
        """One row per level and one for the surface."""
        pressure, levels = np.asarray(self.pressure), len(self.pressure)
        weights = np.zeros((levels + 1, levels))
        weights[:levels, -1] = pressure[-1] / 2
        for layer in range(levels - 1):  # between levels `layer` and `layer + 1`; counts for all levels below its top
            weights[: layer + 1, [layer, layer + 1]] += (pressure[layer] - pressure[layer + 1]) / 2
        weights[levels] = weights[0]
        weights[levels, 0] += self.surface - pressure[0]
        return torch.as_tensor(weights)

    @cached_property
    def _depth_below(self) -> Tensor:
        height, levels = np.log(self.pressure), len(self.pressure)
        weights = np.zeros((levels, levels))
        weights[:, 0] = np.log(self.surface) - height[0]
        for layer in range(levels - 1):
            weights[layer + 1 :, [layer, layer + 1]] += (height[layer] - height[layer + 1]) / 2
        return torch.as_tensor(weights)


def _product(weights: Tensor, x: Tensor) -> Tensor:
    flat = weights.to(x) @ x.flatten(-2)
    return flat.view(*flat.shape[:-1], *x.shape[-2:])
