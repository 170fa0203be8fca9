r"""Horizontal derivatives on the sphere: spectral and filtered along latitude circles, two choices along meridians.

Every derivative is a product per zonal wavenumber m of the rows' Fourier transforms x_m(φ):

    eastward    (1 / (a cos φ)) ∂x/∂λ   →  i m s_m(φ) / (a cos φ) · x_m(φ),      s_m = exp(-36 (m / M)^p) for m ≤ M(φ), else 0
    northward   (1/a) ∂x/∂φ             →  Σ_φ' D_m(φ, φ') x_m(φ')

The exponential filter leaves the waves the grid resolves and takes those next to its limit M. Waves beyond the polar cap
M(φ) = ⌈M cos φ⌉ are shorter than any at the equator: 1 / cos φ would magnify noise there that no neighbouring row supports.

D_m is either the derivative of a fit by spherical harmonics below a degree, or a centred difference of fourth order on five rows,
uneven as those of a Gaussian grid are. Beyond a pole follow the rows of the opposite meridian (half a turn is (-1)^m in
wavenumbers), on which east and north point the other way: components of the wind change sign. Harmonics fit the wind
times cos φ, which is smooth at the poles where its components are not; D_m takes that factor out again. At a row on a pole
itself east and north mean nothing, and both derivatives are set to zero there.

References:
    Canuto, Hussaini, Quarteroni and Zang 2006, Spectral Methods: Fundamentals in Single Domains, section 7.6 (filter);
    Jablonowski and Williamson 2011, Lecture Notes in Computational Science and Engineering 80, 381 (polar filters).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from genda.grid import EARTH_RADIUS, Array, LatLonGrid
from genda.sphere import SphericalGradient, has_harmonics

_REACH = 2
"""Rows on each side in a difference of fourth order."""


@dataclass(frozen=True)
class Differentiation:
    """How derivatives are taken.

    Attributes:
        meridional: "harmonics" on Gaussian grids and on those with rows at both poles, "differences" on any global grid; None takes
            harmonics where the grid has them.
        degrees: degrees of the harmonics; default two thirds of the rows.
        filter_order: p; None for no filter.
        polar_cap: whether waves beyond M(φ) are cut off.
    """

    meridional: Literal["harmonics", "differences"] | None = None
    degrees: int | None = None
    filter_order: int | None = 16
    polar_cap: bool = True

    def __post_init__(self) -> None:
        if self.meridional not in ("harmonics", "differences", None):
            raise ValueError(f"meridional: found {self.meridional!r}, expected 'harmonics', 'differences' or None")
        if self.filter_order is not None and self.filter_order < 2:
            raise ValueError(f"filter_order: found {self.filter_order}, expected at least 2, or None for no filter")


class Derivatives(nn.Module):
    """First derivatives of fields on a global grid, per metre.

    Raises:
        ValueError: for a grid that is not global, has an odd number of columns, or fewer than 4 rows; where harmonics
            are asked for, as :class:`genda.sphere.SphericalTransform`.
    """

    eastward: Tensor
    northward: Tensor
    northward_wind: Tensor

    def __init__(self, grid: LatLonGrid, settings: Differentiation | None = None) -> None:
        super().__init__()
        settings = settings or Differentiation()
        if not grid.is_global:
            raise ValueError(
                "grid: found a region, expected a global grid: derivatives close the circle and cross poles"
            )
        if grid.shape[1] % 2 or grid.shape[0] < 2 * _REACH:
            raise ValueError(f"grid: found {grid.shape}, expected at least 4 rows and an even number of columns")
        self.grid = grid
        self.register_buffer("eastward", _zonal_factor(grid, settings), persistent=False)
        fitted = settings.meridional == "harmonics" or (settings.meridional is None and has_harmonics(grid))
        tables = _harmonics(grid, settings.degrees) if fitted else _differences(grid)
        for name, table in zip(("northward", "northward_wind"), tables, strict=True):
            inside = ~pole_rows(grid).view(-1, 1)
            self.register_buffer(name, table * inside / EARTH_RADIUS, persistent=False)

    def gradient(self, x: Tensor, *, wind: bool = False) -> tuple[Tensor, Tensor]:
        """Eastward and northward derivatives.

        Args:
            x: shape (..., lat, lon).
            wind: whether these are components of a vector rather than scalars.

        Returns:
            each of the shape of x, its units per metre; curvature terms are the caller's.
        """
        if x.numel() == 0:  # which Fourier transforms refuse
            return x, x
        waves = torch.fft.rfft(x)
        east = torch.fft.irfft(waves * self.eastward.to(waves), n=x.shape[-1])
        rows = torch.view_as_real(waves.reshape(-1, *waves.shape[-2:])).permute(2, 1, 0, 3)  # (m, lat, field, part)
        table = (self.northward_wind if wind else self.northward).to(x)
        turned = torch.bmm(table, rows.flatten(2)).view(rows.shape).permute(2, 1, 0, 3).contiguous()
        north = torch.fft.irfft(torch.view_as_complex(turned), n=x.shape[-1])
        return east, north.view(x.shape)


def pole_rows(grid: LatLonGrid) -> Tensor:
    """Which rows lie on a pole, shape (lat,)."""
    return torch.as_tensor(90.0 - np.abs(grid.latitude) < 1e-3)


def secant(grid: LatLonGrid) -> Tensor:
    """1 / cos φ, and zero on a pole, shape (lat,)."""
    cosine = torch.deg2rad(torch.tensor(grid.latitude, dtype=torch.float64)).cos()
    return torch.where(pole_rows(grid), 0.0, 1 / cosine)


def derivative_weights(nodes: Array, at: int) -> Array:
    """Weights of the values at uneven ``nodes`` in the derivative of their Lagrange polynomial at ``nodes[at]``."""
    gaps = nodes[at] - np.delete(nodes, at)
    weights = np.zeros(nodes.size)
    for j in np.delete(np.arange(nodes.size), at):
        others = np.delete(nodes, np.array([at, j]))
        weights[j] = np.prod((nodes[at] - others) / (nodes[j] - others)) / (nodes[j] - nodes[at])
    weights[at] = (1 / gaps).sum()
    return weights


def _zonal_factor(grid: LatLonGrid, settings: Differentiation) -> Tensor:
    """i m s / (a cos φ), shape (lat, m)."""
    order, limit = torch.arange(grid.shape[1] // 2 + 1, dtype=torch.float64), grid.shape[1] // 2
    cosine = torch.deg2rad(torch.tensor(grid.latitude, dtype=torch.float64)).cos().view(-1, 1)
    highest = torch.ceil(limit * cosine) if settings.polar_cap else torch.full_like(cosine, limit)
    kept = (order <= highest).double()
    if settings.filter_order is not None:
        kept = kept * torch.exp(-36 * (order / limit) ** settings.filter_order)
    return 1j * order * kept * secant(grid).view(-1, 1) / EARTH_RADIUS


def _harmonics(grid: LatLonGrid, degrees: int | None) -> tuple[Tensor, Tensor]:
    """∂/∂φ of a scalar and of a component of the wind by spherical harmonics, each (m, lat, lat)."""
    gradient = SphericalGradient(grid, degrees)
    analysis, legendre = gradient.transform.weighted_legendre.double(), gradient.transform.legendre.double()
    latitude = torch.deg2rad(torch.tensor(grid.latitude, dtype=torch.float64))
    slopes = gradient.northward.double()
    wind_slopes = (slopes + legendre * (latitude.sin() * secant(grid))) * secant(grid)  # of P_lm / cos φ
    tables = torch.zeros(2, grid.shape[1] // 2 + 1, grid.shape[0], grid.shape[0], dtype=torch.float64)
    tables[0, : len(slopes)] = slopes.mT @ analysis * grid.shape[1]
    tables[1, : len(slopes)] = wind_slopes.mT @ (analysis * latitude.cos()) * grid.shape[1]
    return tables[0], tables[1]


def _differences(grid: LatLonGrid) -> tuple[Tensor, Tensor]:
    """∂/∂φ of a scalar and of a component of the wind by differences across the poles, each (m, lat, lat)."""
    rows, latitude = grid.shape[0], np.radians(grid.latitude)
    north, south = int(pole_rows(grid)[0]), int(pole_rows(grid)[-1])  # a row on the pole is not repeated beyond it
    before = np.arange(_REACH)[::-1] + north
    after = rows - 1 - south - np.arange(_REACH)
    nodes = np.concatenate([np.pi - latitude[before], latitude, -np.pi - latitude[after]])
    source = np.concatenate([before, np.arange(rows), after])
    near, across = np.zeros((2, rows, rows))
    for row in range(rows):
        for k, weight in enumerate(derivative_weights(nodes[row : row + 2 * _REACH + 1], _REACH)):
            beyond = not _REACH <= row + k < rows + _REACH
            (across if beyond else near)[row, source[row + k]] += weight
    turn = torch.tensor([1.0, -1.0], dtype=torch.float64)[torch.arange(grid.shape[1] // 2 + 1) % 2].view(-1, 1, 1)
    opposite = turn * torch.as_tensor(across)
    return torch.as_tensor(near) + opposite, torch.as_tensor(near) - opposite
