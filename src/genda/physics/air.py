"""States with what every equation needs of them: horizontal gradients, divergence and vertical motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from genda.physics.fields import WIND, Levels, on
from genda.physics.thermodynamics import virtual_temperature


@dataclass(frozen=True)
class Air:
    """Fields (batch, level, lat, lon) by name, each on its own levels, brought to those that an equation asks for.

    Attributes:
        levels: hPa, of each field.
        values: the fields, SI units.
        slopes: their eastward and northward derivatives, per metre.
        wind_levels: hPa, of what follows.
        divergence: s⁻¹.
        omega: dp/dt, Pa s⁻¹.
        surface: dp/dt at the ground, Pa s⁻¹, shape (batch, 1, lat, lon).
    """

    levels: Mapping[str, Levels]
    values: Mapping[str, Tensor]
    slopes: Mapping[str, tuple[Tensor, Tensor]]
    wind_levels: Levels
    divergence: Tensor
    omega: Tensor
    surface: Tensor

    def value(self, field: str, levels: Levels) -> Tensor:
        return on(self.values[field], self.levels[field], levels)

    def slope(self, field: str, levels: Levels) -> tuple[Tensor, Tensor]:
        east, north = self.slopes[field]
        return on(east, self.levels[field], levels), on(north, self.levels[field], levels)

    def advection(self, field: str, levels: Levels) -> Tensor:
        """V·∇x."""
        (u, v), (east, north) = (self.value(wind, levels) for wind in WIND), self.slope(field, levels)
        return u * east + v * north

    def vertical(self, levels: Levels) -> Tensor:
        """ω."""
        return on(self.omega, self.wind_levels, levels)

    def virtual(self, levels: Levels) -> Tensor:
        """T_v; air without humidity is taken as dry."""
        return virtual_temperature(self.value("t", levels), self.value("q", levels))
