r"""The hydrostatic primitive equations in pressure coordinates: what a state says about its own change.

With V = (u, v), Φ geopotential, T_v = T (1 + 0.608 q), f = 2Ω sin φ, ω = dp/dt and V·∇x = u x_λ / (a cos φ) + v x_φ / a:

    u_t = -V·∇u - ω u_p + f v + (tan φ / a) u v - Φ_λ / (a cos φ)
    v_t = -V·∇v - ω v_p - f u - (tan φ / a) u²  - Φ_φ / a
    T_t = -V·∇T - ω T_p + R_d T_v ω / (c_p p) + L C / c_p
    q_t = -V·∇q - ω q_p - C
    Φ_t = Φ_t(p_s) + R_d ∫_p^p_s T_v,t dln p',      Φ_t(p_s) = R_d T_v ω(p_s) / p_s - V·∇Φ(p_s)

    ω   = -∫_0^p ∇·V dp',                           ∇·V = u_λ / (a cos φ) + v_φ / a - (tan φ / a) v

without friction, radiation and convection; condensation C on request. Φ_t(p_s) says that air does not cross the ground, taken as
flat at the pressure p_s; wind and T_v there are those of the lowest level. Two closures of continuity:

    free     ω vanishes at the top; ω(p_s) is what the divergence of the whole column makes it, the change of its mass
    rigid    ω vanishes at p_s as well: the mean divergence of the column is taken out (O'Brien). ω(p_s) is a small
             difference of large terms, and on few levels mostly error

Every term is a differentiable function of the state, in SI units.

References:
    Holton and Hakim 2013, An Introduction to Dynamic Meteorology, sections 2.3 and 3.1; Vallis 2017, section 2.2;
    PhyDA (arXiv 2505.12882), whose adaptive physics-proxy operator this is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from genda.grid import EARTH_RADIUS, LatLonGrid
from genda.physics.air import Air
from genda.physics.condensation import condensation_rate
from genda.physics.constants import HEAT_CAPACITY, LATENT_HEAT, ROTATION, STANDARD_PRESSURE, VIRTUAL
from genda.physics.derivatives import Derivatives, Differentiation, secant
from genda.physics.enforcement import NEEDS, Enforcement, Equation
from genda.physics.fields import SCALARS, WIND, LevelFields, Levels, on
from genda.physics.ground import filled, missing, near_ground
from genda.physics.thermodynamics import thickness, virtual_temperature
from genda.physics.vertical import LEAST_LEVELS, Column
from genda.variables import GAS_CONSTANT

Terms = dict[str, Tensor]


class PrimitiveEquations(nn.Module):
    """K_PDE: the tendencies of the level channels of states, and where to ask for them.

    Attributes:
        report: one :class:`Equation` per field, in the order u, v, t, q, z; ``str`` of one tells its levels or what it lacks.
        levels: hPa from the ground up of each field with an equation.
        wind_levels: hPa from the ground up of levels with both wind components.
    """

    coriolis: Tensor
    curvature: Tensor
    rows: Tensor

    def __init__(
        self,
        grid: LatLonGrid,
        names: Sequence[str],
        *,
        differentiation: Differentiation | None = None,
        enforcement: Enforcement | None = None,
        closure: Literal["free", "rigid"] = "rigid",
        condensation: bool = False,
        surface_pressure: float = STANDARD_PRESSURE,
        rotation: float = ROTATION,
    ) -> None:
        """The equations on a grid.

        Args:
            grid: a global grid, as :class:`genda.physics.derivatives.Derivatives`.
            names: channels of the states, in order; levels may come in any order.
            differentiation: how horizontal derivatives are taken.
            enforcement: where equations are asked to hold.
            closure: "free" or "rigid", of continuity.
            condensation: whether rising saturated air rains.
            surface_pressure: p_s, Pa.
            rotation: Ω, s⁻¹.

        Raises:
            ValueError: for unknown or repeated channels, a grid without these derivatives, levels below p_s, or another closure.
        """
        super().__init__()
        if closure not in ("free", "rigid"):
            raise ValueError(f"closure: found {closure!r}, expected 'free' or 'rigid'")
        self.grid, self.names, self.closure, self.condensation = grid, tuple(names), closure, condensation
        self.enforcement = enforcement or Enforcement()
        self.layout = LevelFields(self.names)
        self.report = tuple(Equation.of(field, self.layout) for field in NEEDS)
        self.levels = {equation.field: equation.levels for equation in self.report if equation.levels}
        self.wind_levels = self.layout.common("uv")
        self._columns = {
            levels: Column(tuple(100.0 * level for level in levels), surface_pressure)
            for levels in {self.wind_levels, *self.levels.values()}
            if len(levels) >= LEAST_LEVELS
        }
        self.derivatives = Derivatives(grid, differentiation)
        sine = torch.deg2rad(torch.tensor(grid.latitude, dtype=torch.float64)).sin().view(-1, 1)
        self.register_buffer("coriolis", 2 * rotation * sine, persistent=False)
        self.register_buffer("curvature", sine * secant(grid).view(-1, 1) / EARTH_RADIUS, persistent=False)
        self.register_buffer("rows", self.enforcement.rows(grid), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tendencies of states.

        Args:
            x: physical units, shape (batch, channel, lat, lon); NaN below the ground is filled.

        Returns:
            units per second, shape of x; zero for channels without an equation, without meaning where :meth:`enforced` is false.

        Raises:
            ValueError: for another shape, values that are not finite above the ground, or channels without any equation.
        """
        if not self.levels:
            left_out = "; ".join(map(str, self.report))
            raise ValueError(f"channels: found no equation that these channels allow ({left_out})")
        tendencies = {field: total(terms) for field, terms in self.terms(x).items()}
        return self.layout.join(tendencies, self.levels)

    def terms(self, x: Tensor) -> dict[str, Terms]:
        """The terms of each equation by field and name.

        Args:
            x: as :meth:`forward`.

        Returns:
            units per second, each (batch, level, lat, lon) on :attr:`levels` of the field.

        Raises:
            ValueError: as :meth:`forward`.
        """
        fields = self._fields(x)
        if not self.levels:
            return {}
        air, result = self._air(fields), dict[str, Terms]()
        if "u" in self.levels:
            result |= self._momentum(air)
        if "t" in self.levels:
            result["t"] = self._heat(air)
        if "q" in self.levels:
            result["q"] = self._moisture(air)
        if "z" in self.levels:
            result["z"] = self._geopotential(air, result)
        return result

    def enforced(self, x: Tensor) -> Tensor:
        """Where the tendencies of states are asked to hold.

        Args:
            x: as :meth:`forward`.

        Returns:
            Boolean, shape of x: false for channels without an equation, beyond the limit of latitude, on poles, at the edges
            of the column if so chosen, and within reach of a value below the ground, for z at every level above one. The rigid
            closure's ω above such values still feels the wind that was filled in.

        Raises:
            ValueError: as :meth:`forward`.
        """
        absent, masks = self.absent(x), {}
        for equation in self.report:
            if not equation.levels:
                continue
            used = NEEDS[equation.field] + "q"  # which is part of T_v
            found = [on(absent[name], self.layout.levels[name], equation.levels) for name in used]
            below = torch.stack(found).any(dim=0)
            if equation.field == "z":  # an integral from the ground
                below = below.any(dim=1, keepdim=True).expand_as(below)
            kept = self.enforcement.levels(equation).to(self.rows.device).view(-1, 1, 1) & self.rows.view(-1, 1)
            masks[equation.field] = kept & ~near_ground(below)
        return self.layout.join(masks, self.levels) if masks else torch.zeros_like(x, dtype=torch.bool)

    def absent(self, x: Tensor) -> dict[str, Tensor]:
        """Where each field is below the ground, Boolean, each (batch, level, lat, lon) on the field's own levels.

        Raises:
            ValueError: as :meth:`forward`.
        """
        return {field: missing(values, field) for field, values in self.layout.split(self._checked(x)).items()}

    @property
    def has_wind_column(self) -> bool:
        """Whether there is wind on enough levels for divergence to be integrated."""
        return self.wind_levels in self._columns

    def vertical_velocity(self, x: Tensor) -> Tensor:
        """ω, Pa s⁻¹, shape (batch, level, lat, lon) on :attr:`wind_levels`.

        Raises:
            ValueError: as :meth:`forward`, and without three levels of wind.
        """
        self._wind_column()
        return self._air(self._fields(x)).omega

    def mass_tendency(self, x: Tensor) -> Tensor:
        """-∫_0^p_s ∇·V dp: what the wind adds to the weight of a column, Pa s⁻¹, shape (batch, 1, lat, lon).

        The residual of continuity: of an analysis it should be near the observed tendencies of surface pressure, some 1e-2,
        and its area mean is zero for any wind. The rigid closure takes it out of ω.

        Raises:
            ValueError: as :meth:`vertical_velocity`.
        """
        column = self._wind_column()
        return -column.mass(self._air(self._fields(x)).divergence)

    def hydrostatic_residual(self, x: Tensor) -> Tensor:
        """Thickness less R_d T_v ln(p_bottom / p_top), m² s⁻², shape (batch, layer, lat, lon).

        Layers lie between neighbouring levels that hold geopotential and temperature, from the ground up.

        Raises:
            ValueError: as :meth:`forward`, and without two such levels.
        """
        levels = self.layout.common("tz")
        if len(levels) < 2:
            raise ValueError(f"channels: found z and t on {len(levels)} common levels, expected at least 2")
        fields = self._fields(x)
        z, t, q = (on(fields[name], self.layout.levels[name], levels) for name in "ztq")
        return z.diff(dim=1) - thickness(virtual_temperature(t, q), levels)

    def _momentum(self, air: Air) -> dict[str, Terms]:
        levels = self.levels["u"]
        column, curvature, coriolis = self._columns[levels], self.curvature.to(air.omega), self.coriolis.to(air.omega)
        u, v, omega = air.value("u", levels), air.value("v", levels), air.vertical(levels)
        turning = {"u": v, "v": -u}
        return {
            field: {
                "advection": -air.advection(field, levels),
                "vertical advection": -omega * column.derivative(air.value(field, levels)),
                "rotation": coriolis * turning[field],
                "curvature": curvature * u * turning[field],
                "pressure gradient": -slope,
            }
            for field, slope in zip(WIND, air.slope("z", levels), strict=True)
        }

    def _heat(self, air: Air) -> Terms:
        levels = self.levels["t"]
        column, t, omega = self._columns[levels], air.value("t", levels), air.vertical(levels)
        terms = {
            "advection": -air.advection("t", levels),
            "vertical advection": -omega * column.derivative(t),
            "adiabatic": GAS_CONSTANT / HEAT_CAPACITY * air.virtual(levels) * omega / column.broadcast(t),
        }
        if self.condensation:
            terms["condensation"] = LATENT_HEAT / HEAT_CAPACITY * self._rain(air, levels)
        return terms

    def _moisture(self, air: Air) -> Terms:
        levels = self.levels["q"]
        terms = {
            "advection": -air.advection("q", levels),
            "vertical advection": -air.vertical(levels) * self._columns[levels].derivative(air.value("q", levels)),
        }
        if self.condensation:
            terms["condensation"] = -self._rain(air, levels)
        return terms

    def _rain(self, air: Air, levels: Levels) -> Tensor:
        """C on levels; none where temperature or humidity is missing."""
        moist = self.layout.common("uvtq")
        pressure = 100 * torch.tensor(moist, dtype=air.omega.dtype, device=air.omega.device).view(-1, 1, 1)
        rate = condensation_rate(air.value("t", moist), air.value("q", moist), air.vertical(moist), pressure)
        return on(rate, moist, levels)

    def _geopotential(self, air: Air, terms: dict[str, Terms]) -> Terms:
        levels = self.levels["z"]
        column, lowest = self._columns[levels], levels[:1]
        t, q, virtual = air.value("t", levels), air.value("q", levels), air.virtual(levels)
        warming = on(total(terms["t"]), self.levels["t"], levels) * (1 + VIRTUAL * q)
        if "q" in terms:
            warming = warming + VIRTUAL * t * on(total(terms["q"]), self.levels["q"], levels)
        depth = math.log(column.surface / column.pressure[0])
        climb = torch.zeros_like(t[:, :1])  # V·∇Φ(p_s)
        for wind, z, t_slope, q_slope in zip(WIND, *(air.slope(field, lowest) for field in "ztq"), strict=True):
            warmer = t_slope * (1 + VIRTUAL * q[:, :1]) + VIRTUAL * t[:, :1] * q_slope
            climb = climb + air.value(wind, lowest) * (z - GAS_CONSTANT * depth * warmer)
        return {
            "surface": (GAS_CONSTANT / column.surface * virtual[:, :1] * air.surface - climb).expand_as(t),
            "thickness": GAS_CONSTANT * column.depth_below(warming),
        }

    def _air(self, fields: dict[str, Tensor]) -> Air:
        slopes: dict[str, tuple[Tensor, Tensor]] = {}
        for names in (WIND, SCALARS):
            block = torch.cat([fields[name] for name in names], dim=1)
            counts = [fields[name].shape[1] for name in names]
            east, north = (torch.split(d, counts, dim=1) for d in self.derivatives.gradient(block, wind=names is WIND))
            slopes |= dict(zip(names, zip(east, north, strict=True), strict=True))
        own, levels, column = self.layout.levels, self.wind_levels, self._wind_column()
        v, v_north = (on(x, own["v"], levels) for x in (fields["v"], slopes["v"][1]))
        divergence = on(slopes["u"][0], own["u"], levels) + v_north - self.curvature.to(v) * v
        omega, surface = -column.mass_above(divergence), -column.mass(divergence)
        if self.closure == "rigid":
            omega, surface = omega - column.broadcast(v) / column.surface * surface, torch.zeros_like(surface)
        return Air(own, fields, slopes, levels, divergence, omega, surface)

    def _wind_column(self) -> Column:
        if not self.has_wind_column:
            found = len(self.wind_levels)
            raise ValueError(f"channels: found u and v on {found} common levels, expected at least {LEAST_LEVELS}")
        return self._columns[self.wind_levels]

    def _fields(self, x: Tensor) -> dict[str, Tensor]:
        fields = self.layout.split(self._checked(x))
        return {name: filled(values, missing(values, name)) for name, values in fields.items()}

    def _checked(self, x: Tensor) -> Tensor:
        expected = (len(self.names), *self.grid.shape)
        if x.ndim != 4 or x.shape[1:] != expected:
            found = ", ".join(map(str, x.shape))
            raise ValueError(f"state: found shape ({found}), expected (batch, {', '.join(map(str, expected))})")
        return x


def total(terms: Terms) -> Tensor:
    """The tendency that the terms of an equation make."""
    first, *others = terms.values()
    for term in others:
        first = first + term
    return first
