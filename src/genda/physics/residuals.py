r"""What the equations leave over of a state, in three forms, each in units of what they leave over of a truth.

    tendencies   R = K(x) - K(x')              against another state x' at the same time: the truth, in training
    two times    R = (x - x')/Δt - K(x)        against the state x' a time Δt before
    balances     hydrostatic    Φ(p') - Φ(p) - R_d T_v ln(p/p')            of a layer p > p'
                 geostrophic    f v - Φ_x,  -f u - Φ_y                     of a level, beyond 20 degrees
                 thermal wind   f Δv - R_d ln(p/p') T_v,x,  -f Δu - R_d ln(p/p') T_v,y     of a layer, beyond 20 degrees
                 continuity     -∫ ∇·V dp                                  of the column

K are the tendencies of :class:`genda.physics.primitive_equations.PrimitiveEquations`. All are planes of one tensor, so that
scales, masks and scores know one shape. No truth on few levels and a coarse grid satisfies discrete equations: of the last two
forms a smooth field leaves less than a truth does, and only what a state leaves beyond the truth's share is wrong. A step Δt of
half a day is also far too long for a rate of change: there the second form says little.

References:
    PhyDA (arXiv 2505.12882), equations 4 to 8; Bastek, Sun and Kochmann 2024, arXiv 2403.14404 (a residual
    as a virtual observation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from genda.physics.constants import LEAST_LATITUDE
from genda.physics.fields import on
from genda.physics.ground import filled, missing, near_ground
from genda.physics.primitive_equations import PrimitiveEquations
from genda.physics.thermodynamics import thickness, virtual_temperature
from genda.variables import channel

Planes = tuple[Tensor, Tensor]
"""A residual (batch, plane, lat, lon), and where it counts, Boolean of the same shape."""


class Residual(Protocol):
    """R as planes.

    Attributes:
        dynamics: K.
        equations: the equation of each plane, in order.
    """

    @property
    def dynamics(self) -> PrimitiveEquations: ...

    @property
    def equations(self) -> tuple[str, ...]: ...

    def __call__(self, x: Tensor, other: Tensor) -> Planes:
        """Residuals of states ``x`` with respect to ``other``, both in physical units, (batch, channel, lat, lon)."""
        ...

    def of_truth(self, x: Tensor, other: Tensor) -> Planes:
        """What sets the scale: the residual of truths, or their tendencies where that vanishes."""
        ...


@dataclass(frozen=True)
class TendencyResidual:
    """R = K(x) - K(x'), per second; a plane is a channel of the state."""

    dynamics: PrimitiveEquations

    @property
    def equations(self) -> tuple[str, ...]:
        return _fields(self.dynamics)

    def __call__(self, x: Tensor, other: Tensor) -> Planes:
        where = self.dynamics.enforced(x) & self.dynamics.enforced(other)
        return self.dynamics(x) - self.dynamics(other), where

    def of_truth(self, x: Tensor, other: Tensor) -> Planes:
        return self.dynamics(x), self.dynamics.enforced(x)


@dataclass(frozen=True)
class TwoTimeResidual:
    """R = (x - x')/Δt - K(x), per second; a plane is a channel of the state.

    Attributes:
        dynamics: K.
        seconds: Δt, from x' to x.
    """

    dynamics: PrimitiveEquations
    seconds: float

    @property
    def equations(self) -> tuple[str, ...]:
        return _fields(self.dynamics)

    def __call__(self, x: Tensor, other: Tensor) -> Planes:
        where = self.dynamics.enforced(x) & torch.isfinite(other)
        return torch.where(where, (x - other) / self.seconds - self.dynamics(x), 0.0), where

    def of_truth(self, x: Tensor, other: Tensor) -> Planes:
        return self(x, other)


@dataclass(frozen=True)
class BalanceResidual:
    """Hydrostatic, geostrophic and thermal-wind balance and continuity, in SI units; x' plays no part.

    Raises:
        ValueError: where the channels allow none of them.
    """

    dynamics: PrimitiveEquations

    def __post_init__(self) -> None:
        if not self.equations:
            raise ValueError("channels: found none of the balances' fields, expected u, v, z or z, t on common levels")

    @cached_property
    def equations(self) -> tuple[str, ...]:
        d = self.dynamics
        mass, momentum, columns = (len(d.layout.common(fields)) for fields in ("zt", "uvz", "uvt"))
        names = ["hydrostatic"] * max(0, mass - 1)
        names += ["geostrophic"] * (2 * momentum if "u" in d.levels else 0)
        names += ["thermal wind"] * (2 * max(0, columns - 1))
        return (*names, *(["continuity"] if d.has_wind_column else []))

    def __call__(self, x: Tensor, other: Tensor) -> Planes:
        d, parts = self.dynamics, []
        if "hydrostatic" in self.equations:
            parts.append(d.hydrostatic_residual(x))
        if "geostrophic" in self.equations:
            terms = d.terms(x)
            parts += [terms[wind]["rotation"] + terms[wind]["pressure gradient"] for wind in "uv"]
        if "thermal wind" in self.equations:
            parts += thermal_wind_residual(d, x)
        if "continuity" in self.equations:
            parts.append(d.mass_tendency(x))
        values = torch.cat(parts, dim=1)
        below = torch.cat(list(d.absent(x).values()), dim=1).any(dim=1, keepdim=True)
        above = ~near_ground(below)  # a column with a value below the ground counts nowhere
        return values, (above & self._rows()).expand_as(values)

    def of_truth(self, x: Tensor, other: Tensor) -> Planes:
        return self(x, other)

    def _rows(self) -> Tensor:
        """Which rows count in each plane, (plane, lat, 1), where the equations are."""
        rows, latitude = self.dynamics.rows, self.dynamics.grid.latitude
        outside = torch.tensor(latitude, device=rows.device).abs() >= LEAST_LATITUDE
        turning = torch.tensor([name in ("geostrophic", "thermal wind") for name in self.equations], device=rows.device)
        return (rows & (outside | ~turning.view(-1, 1))).unsqueeze(-1)


def thermal_wind_residual(dynamics: PrimitiveEquations, x: Tensor) -> tuple[Tensor, Tensor]:
    """f Δv - R_d ln(p/p') T_v,x and -f Δu - R_d ln(p/p') T_v,y between neighbouring levels that hold u, v and t.

    Args:
        dynamics: has grid, levels and derivatives.
        x: physical units, shape (batch, channel, lat, lon).

    Returns:
        m s⁻², each (batch, layer, lat, lon), from the ground up.
    """
    levels, layout = dynamics.layout.common("uvt"), dynamics.layout
    fields = {name: filled(part, missing(part, name)) for name, part in layout.split(x).items()}
    u, v, t, q = (on(fields[name], layout.levels[name], levels) for name in "uvtq")
    east, north = dynamics.derivatives.gradient(thickness(virtual_temperature(t, q), levels))
    coriolis = dynamics.coriolis.to(x)
    return coriolis * v.diff(dim=1) - east, -coriolis * u.diff(dim=1) - north


class ResidualNorm(nn.Module):
    """Mean squares of a residual by equation, in units of those of a truth.

    Args:
        residual: R.
        area_weights: of latitudes, shape (lat,).
        scale: root mean square of each plane for truths, shape (plane,); a plane of scale 0 is left out.

    Raises:
        ValueError: where that leaves none.
    """

    scale: Tensor
    area: Tensor

    def __init__(self, residual: Residual, area_weights: Tensor, scale: Tensor) -> None:
        super().__init__()
        if not bool((scale > 0).any()):
            raise ValueError("residual: found no equation that these channels allow, expected u, v, z on three levels")
        self.residual = residual
        self.dynamics = residual.dynamics  # a module, which moves to a device with this one
        self.register_buffer("scale", scale)
        self.register_buffer("area", area_weights.view(-1, 1), persistent=False)

    def forward(self, x: Tensor, other: Tensor) -> dict[str, Tensor]:
        """Mean square by equation, each (batch,); 1 is what a truth has.

        Args:
            x: states in physical units, (batch, channel, lat, lon).
            other: states they are held against, the same shape.
        """
        values, where = self.residual(x, other)
        used = self.scale > 0
        squares = mean_squares(values, where, self.area)[:, used] / self.scale[used].to(values) ** 2
        names = [name for name, kept in zip(self.residual.equations, used.tolist(), strict=True) if kept]
        return {
            name: torch.stack([squares[:, i] for i, own in enumerate(names) if own == name], dim=1).mean(dim=1)
            for name in dict.fromkeys(names)
        }


def mean_squares(values: Tensor, where: Tensor, area: Tensor) -> Tensor:
    """Area mean of a squared residual where it counts, (batch, plane); zero for a plane that counts nowhere."""
    weights = where * area.view(-1, 1).to(values)
    summed = weights.sum(dim=(-2, -1))
    squares = (weights * torch.where(where, values, 0.0) ** 2).sum(dim=(-2, -1))
    return torch.where(summed > 0, squares / summed.clamp(min=1e-12), 0.0)


def _fields(dynamics: PrimitiveEquations) -> tuple[str, ...]:
    return tuple(channel(name).field.id for name in dynamics.names)
