"""Which equations a list of channels allows, and where they are asked to hold ("selective enforcement")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genda.grid import LatLonGrid
from genda.physics.derivatives import pole_rows
from genda.physics.fields import LevelFields, Levels
from genda.physics.vertical import LEAST_LEVELS

NEEDS = {"u": "uvz", "v": "uvz", "t": "uvt", "q": "uvq", "z": "uvtz"}
"""Fields without which there is no equation for the tendency of one."""


@dataclass(frozen=True)
class Equation:
    """Whether the tendency of a field can be had from the channels of a state.

    Attributes:
        field: identifier of the field.
        levels: hPa, from the ground up; empty where the equation is left out.
        found: the levels of each field it needs.
        dry: those of its levels without humidity, whose virtual temperature is the temperature.
    """

    field: str
    levels: Levels
    found: Mapping[str, Levels]
    dry: Levels = ()

    @staticmethod
    def of(field: str, state: LevelFields) -> Equation:
        """The equation of a field on the levels that all the fields it needs are held on."""
        common = state.common(NEEDS[field])
        found = {name: state.levels[name] for name in NEEDS[field]}
        levels = common if len(common) >= LEAST_LEVELS else ()
        moist = state.levels["q"] if field in "tz" else levels
        return Equation(field, levels, found, tuple(level for level in levels if level not in moist))

    def __str__(self) -> str:
        if self.levels:
            dry = f", of dry air on {_listed(self.dry)} (no q)" if self.dry else ""
            return f"{self.field}: on {_listed(self.levels)} hPa{dry}"
        found = "; ".join(f"{name} on {_listed(levels)}" for name, levels in self.found.items())
        return f"{self.field}: left out, found {found}; expected at least {LEAST_LEVELS} levels in common"


@dataclass(frozen=True)
class Enforcement:
    """Where equations are asked to hold.

    Attributes:
        latitude: degrees from the equator beyond which none is.
        interior: whether the lowest and the highest level of an equation are left out, at which derivatives are one-sided.
    """

    latitude: float = 85.0
    interior: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.latitude <= 90:
            raise ValueError(f"latitude: found {self.latitude:g}, expected degrees in (0, 90]")

    def rows(self, grid: LatLonGrid) -> Tensor:
        """Boolean, shape (lat,); a row on a pole never counts."""
        return torch.as_tensor(np.abs(grid.latitude) <= self.latitude) & ~pole_rows(grid)

    def levels(self, equation: Equation) -> Tensor:
        """Which levels of an equation count, boolean, shape (level,)."""
        count, edge = len(equation.levels), int(self.interior)
        kept = torch.zeros(count, dtype=torch.bool)
        kept[edge : count - edge] = True
        return kept


def _listed(levels: Levels) -> str:
    return ", ".join(map(str, levels)) or "none"
