r"""Balance: how far wind and mass, temperature and thickness are from each other's equilibrium.

Outside the tropics the wind is near the geostrophic one, and everywhere the thickness of a layer between two pressure levels
follows from its mean virtual temperature:

    f u_g = -(1/a) ∂z/∂φ,       f v_g = 1/(a cos φ) ∂z/∂λ,       f = 2Ω sin φ,       |φ| ≥ 20°
    z_top - z_bottom = R_d T_v ln(p_bottom / p_top),       T_v = T (1 + 0.608 q)

with z the geopotential and T_v the mean of both levels. What is left over is not zero for a truth either: curved flow,
divergence and the profile between the levels are part of it. So a forecast is scored by the root mean square of its residual over
that of the truth. At 1 it is as balanced as the truth; noise that is independent between channels raises it, smoothing lowers it.
Of an ensemble the members are scored: their mean is smoother than any state. Derivatives are spectral, with all degrees that the
grid resolves, because noise lives in the highest.

References:
    Holton and Hakim 2013, An Introduction to Dynamic Meteorology, sections 1.4 and 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from genda.grid import EARTH_RADIUS, LatLonGrid
from genda.physics.constants import LEAST_LATITUDE, ROTATION
from genda.physics.thermodynamics import thickness, virtual_temperature
from genda.sphere import SphericalGradient, has_harmonics
from genda.variables import Channel, channel
from genda.verify.scores import Array, area_mean, normalised_weights
from genda.verify.spectra import resolved_degrees


def geostrophic_levels(channels: Sequence[str]) -> tuple[str, ...]:
    """Names of the levels with geopotential and both wind components: "850", in hPa, from the ground up."""
    return tuple(str(level) for level in _levels(channels, "zuv"))


def hydrostatic_layers(channels: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers between neighbouring levels with geopotential and temperature: "850-700", from the ground up."""
    levels = _levels(channels, "zt")
    return tuple(f"{bottom}-{top}" for bottom, top in pairwise(levels))


def geostrophic_wind(z: Tensor, grid: LatLonGrid) -> tuple[Tensor, Tensor]:
    """Geostrophic wind of a geopotential.

    Args:
        z: m² s⁻², shape (..., lat, lon).
        grid: a global grid with spherical harmonics.

    Returns:
        eastward and northward wind, m s⁻¹, each of the shape of z, float64; infinite or meaningless at the equator.
    """
    east, north = _gradient(grid, resolved_degrees(grid)).to(z.device)(z.double())
    sine = torch.deg2rad(torch.as_tensor(grid.latitude, dtype=torch.float64, device=z.device)).sin().view(-1, 1)
    scale = 1 / (2 * ROTATION * sine * EARTH_RADIUS)
    return -scale * north, scale * east


def residuals(fields: Tensor, channels: Sequence[str], grid: LatLonGrid, weights: Tensor | Array) -> dict[str, Tensor]:
    """Mean squared residuals by name, shape (..., level or layer), of the balances that channels and grid allow to look for."""
    geostrophic = geostrophic_residual(fields, channels, grid, weights) if has_harmonics(grid) else None
    hydrostatic = hydrostatic_residual(fields, channels, weights)
    found = {"geostrophic_residual": geostrophic, "hydrostatic_residual": hydrostatic}
    return {name: values for name, values in found.items() if values is not None}


def geostrophic_residual(
    fields: Tensor, channels: Sequence[str], grid: LatLonGrid, weights: Tensor | Array
) -> Tensor | None:
    """Area mean of |v - v_g|² per level outside the tropics.

    Args:
        fields: physical units, shape (..., channel, lat, lon).
        channels: identifiers, in order.
        grid: a global grid with spherical harmonics.
        weights: shape (lat,) or (lat, lon).

    Returns:
        shape (..., level), m² s⁻², levels as :func:`geostrophic_levels`; None where the channels or the weights leave nothing.
    """
    levels = _levels(channels, "zuv")
    outside = torch.as_tensor(np.abs(grid.latitude) >= LEAST_LATITUDE, device=fields.device).view(-1, 1)
    area = normalised_weights(weights, fields) * outside
    if not levels or float(area.sum()) == 0:
        return None
    z, u, v = (_slices(fields, channels, name, levels) for name in "zuv")
    u_g, v_g = geostrophic_wind(z, grid)
    squares = (u.double() - u_g) ** 2 + (v.double() - v_g) ** 2
    return area_mean(torch.where(outside, squares, 0.0), area)


def hydrostatic_residual(fields: Tensor, channels: Sequence[str], weights: Tensor | Array) -> Tensor | None:
    """Area mean of the squared difference between thickness and R_d T_v ln(p_bottom / p_top) per layer.

    Args:
        fields: physical units, shape (..., channel, lat, lon).
        channels: identifiers, in order; the air of a level without humidity is taken as dry.
        weights: shape (lat,) or (lat, lon).

    Returns:
        shape (..., layer), m⁴ s⁻⁴, layers as :func:`hydrostatic_layers`; None where there is none.
    """
    levels, moist = _levels(channels, "zt"), _levels(channels, "ztq")
    if len(levels) < 2:
        return None
    z, t = (_slices(fields, channels, name, levels).double() for name in "zt")
    q = torch.zeros_like(t)
    if moist:
        q[..., [levels.index(level) for level in moist], :, :] = _slices(fields, channels, "q", moist).double()
    return area_mean((z.diff(dim=-3) - thickness(virtual_temperature(t, q), levels)) ** 2, weights)


def level_winds(channels: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of both wind components at every level that has them."""
    names = list(channels)
    return [(names.index(f"u{level}"), names.index(f"v{level}")) for level in _levels(channels, "uv")]


@lru_cache(maxsize=8)
def _gradient(grid: LatLonGrid, lmax: int) -> SphericalGradient:
    return SphericalGradient(grid, lmax).double()


def _levels(channels: Sequence[str], needed: str) -> list[int]:
    """Levels in hPa, from the ground up, that hold all the fields named."""
    parsed = [c for name in channels if (c := _channel(name)) is not None and c.level_hpa is not None]
    held = [{c.level_hpa for c in parsed if c.field.id == name} for name in needed]
    return sorted((level for level in set.intersection(*held) if level), reverse=True)


def _slices(fields: Tensor, channels: Sequence[str], name: str, levels: Sequence[int]) -> Tensor:
    parsed = [_channel(c) for c in channels]
    positions = {c.level_hpa: i for i, c in enumerate(parsed) if c is not None and c.field.id == name}
    return fields[..., [positions[level] for level in levels], :, :]


def _channel(name: str) -> Channel | None:
    """None for a toy model's variable."""
    try:
        return channel(name)
    except ValueError:
        return None
