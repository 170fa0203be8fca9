"""Spherical harmonics on Gaussian and equiangular grids (the only user of torch-harmonics besides the SFNO).

Orthonormal convention: with a_lm the coefficients of x, the area mean of x² is

    (1 / 4π) Σ_l [ |a_l0|² + 2 Σ_{m>0} |a_lm|² ],

and a homogeneous field has E|a_lm|² = c_l for every m. Coefficients are complex tensors (..., l, m) with l < lmax, m < lmax, or
the same numbers as *waves*, real and imaginary part apart, of shape (m, l, 2, batch, channel). In that order every step of a
transform is one matrix product on the memory the last one left; a filter in the loop of a solver takes half the time for it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch_harmonics import InverseRealSHT, InverseRealVectorSHT, RealSHT

from genda.grid import LatLonGrid


def triangular_limit(grid: LatLonGrid) -> int:
    """Degrees resolved without aliasing of squares: two thirds of the rows (T31 for 48×96, so 32)."""
    return min(2 * grid.shape[0] // 3, grid.shape[1] // 2)


class SphericalTransform(nn.Module):
    """Analysis and synthesis on one grid up to degree ``lmax`` - 1.

    Raises:
        ValueError: for a grid that is neither Gaussian nor equiangular with both poles, or not global, or one too coarse for
            ``lmax``.
    """

    quadrature: Tensor
    legendre: Tensor
    weighted_legendre: Tensor
    analysing_waves: Tensor
    synthesising_waves: Tensor

    def __init__(self, grid: LatLonGrid, lmax: int | None = None) -> None:
        super().__init__()
        kind = _kind(grid)
        self.grid, self.lmax = grid, lmax or triangular_limit(grid)
        highest = min(grid.shape[0], grid.shape[1] // 2 + 1)
        if self.lmax > highest:
            raise ValueError(f"grid {grid.shape}: found {self.lmax} degrees, expected at most {highest}")
        limits = {"lmax": self.lmax, "mmax": self.lmax, "grid": kind, "norm": "ortho"}
        order = torch.arange(self.lmax, dtype=torch.float64).view(-1, 1)
        angle = order * torch.arange(grid.shape[1]) * (2 * np.pi / grid.shape[1])
        waves = torch.stack([angle.cos(), -angle.sin()], dim=1).flatten(0, 1)  # (m and part, lon)
        once = (order == 0) | (2 * order == grid.shape[1])  # in a real field, the other orders stand twice
        weights = torch.as_tensor(grid.area_weights) * 4 * np.pi / (grid.shape[0] * grid.shape[1])
        buffers = {
            "quadrature": weights.view(-1, 1),
            "legendre": InverseRealSHT(*grid.shape, **limits).pct,  # (m, l, lat)
            "weighted_legendre": RealSHT(*grid.shape, **limits).weights * (2 * np.pi / grid.shape[1]),
            "analysing_waves": waves,
            "synthesising_waves": waves * torch.where(once, 1.0, 2.0).repeat_interleave(2, dim=0),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def analysis(self, x: Tensor) -> Tensor:
        """Fields (..., lat, lon) to coefficients (..., l, m)."""
        waves = self.waves(x.reshape(1, -1, *x.shape[-2:]))
        parts = waves.permute(3, 4, 1, 0, 2).reshape(*x.shape[:-2], self.lmax, self.lmax, 2)
        return torch.view_as_complex(parts.contiguous())

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """Coefficients (..., l, m) to fields (..., lat, lon)."""
        parts = torch.view_as_real(coefficients).reshape(1, -1, self.lmax, self.lmax, 2)
        return self.fields(parts.permute(3, 2, 4, 0, 1)).view(*coefficients.shape[:-2], *self.grid.shape)

    def waves(self, x: Tensor) -> Tensor:
        """Coefficients of fields (batch, channel, lat, lon) as (m, l, 2, batch, channel)."""
        return self._inner_products(x, self.weighted_legendre)

    def projections(self, x: Tensor) -> Tensor:
        """Inner products of the harmonics with fields, each grid point counting alike; shapes of :meth:`waves`.

        The transpose of :meth:`fields` for the product of coefficients in which an order m > 0 counts twice:
        Σ x · fields(w) = Σ_m μ_m w_m · projections(x)_m with μ_0 = 1 and μ_m = 2.
        """
        return self._inner_products(x, self.legendre)

    def fields(self, waves: Tensor) -> Tensor:
        """Coefficients (m, l, 2, batch, channel) to fields (batch, channel, lat, lon)."""
        return self.sums(waves, self.legendre)

    def sums(self, waves: Tensor, legendre: Tensor) -> Tensor:
        """:meth:`fields` with other functions of latitude (m, l, lat) in the place of Legendre's."""
        batch, channel = waves.shape[-2:]
        rows = torch.bmm(waves.reshape(self.lmax, self.lmax, -1).mT, legendre.to(waves))  # (m, 2·b·c, lat)
        x = rows.view(2 * self.lmax, -1).T @ self.synthesising_waves.to(waves)
        return x.view(batch, channel, *self.grid.shape)

    def _inner_products(self, x: Tensor, legendre: Tensor) -> Tensor:
        batch, channel, nlat, nlon = x.shape
        rows = self.analysing_waves.to(x) @ x.reshape(-1, nlon).T  # (m and part, b·c·lat)
        waves = torch.bmm(legendre.to(x), rows.view(self.lmax, -1, nlat).mT)
        return waves.view(self.lmax, self.lmax, 2, batch, channel)

    @property
    def white_noise_power(self) -> float:
        """E|a_lm|² of unit white noise on the grid points, averaged over m: Σ ω² / 4π by the addition theorem."""
        return float((self.quadrature**2).sum() * self.grid.shape[1] / (4 * np.pi))


class SphericalGradient(nn.Module):
    """Gradient on the unit sphere of fields truncated to degrees below ``lmax``; regular at the poles.

    With x = Σ a_lm P_lm(sin φ) e^{imλ}, the parts are  ∂x/∂φ = Σ a_lm (dP_lm/dφ) e^{imλ}  northward and
    (1/cos φ) ∂x/∂λ = Σ i a_lm (m P_lm / cos φ) e^{imλ}  eastward.
    """

    northward: Tensor
    eastward: Tensor

    def __init__(self, grid: LatLonGrid, lmax: int | None = None) -> None:
        super().__init__()
        self.transform = SphericalTransform(grid, lmax)
        degrees = self.transform.lmax
        tables = InverseRealVectorSHT(*grid.shape, lmax=degrees, mmax=degrees, grid=_kind(grid), norm="ortho").dpct
        self.register_buffer("northward", -tables[0], persistent=False)  # there by colatitude
        self.register_buffer("eastward", tables[1].clone(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Fields (..., lat, lon) to their eastward and northward derivatives per radian of arc, each (..., lat, lon)."""
        waves = self.transform.waves(x.reshape(1, -1, *x.shape[-2:]))
        turned = torch.stack([-waves[:, :, 1], waves[:, :, 0]], dim=2)  # i times
        east, north = self.transform.sums(turned, self.eastward), self.transform.sums(waves, self.northward)
        return east.view(x.shape), north.view(x.shape)


def has_harmonics(grid: LatLonGrid) -> bool:
    """Whether spherical harmonics exist for a grid: a global Gaussian one, or one with rows at both poles."""
    try:
        _kind(grid)
    except ValueError:
        return False
    return min(grid.shape) > 1


def _kind(grid: LatLonGrid) -> str:
    """What torch-harmonics calls the grid."""
    if grid.is_gaussian and grid.periodic:
        return "legendre-gauss"
    if grid.is_global and math.isclose(grid.latitude[0], 90.0, abs_tol=1e-3):
        return "equiangular"
    raise ValueError(
        f"grid {grid.shape}: spherical harmonics expect a global Gaussian grid or rows at both poles; "
        "elsewhere use an isotropic base"
    )


def degree_power(coefficients: Tensor) -> Tensor:
    """Contribution of each degree to the area mean of the square, shape (..., l)."""
    squares = coefficients.abs() ** 2
    return (2 * squares.sum(dim=-1) - squares[..., 0]) / (4 * torch.pi)
