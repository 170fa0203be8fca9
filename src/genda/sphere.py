"""Spherical harmonics on Gaussian and equiangular grids (the only user of torch-harmonics besides the SFNO).

Orthonormal convention: with a_lm the coefficients of x, the area mean of x² is

    (1 / 4π) Σ_l [ |a_l0|² + 2 Σ_{m>0} |a_lm|² ],

and a homogeneous field has E|a_lm|² = c_l for every m. Coefficients are complex tensors (..., l, m) with l < lmax, m < lmax.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch_harmonics import InverseRealSHT, RealSHT

from genda.grid import LatLonGrid


def triangular_limit(grid: LatLonGrid) -> int:
    """Degrees resolved without aliasing of squares: two thirds of the rows (T31 for 48×96, so 32)."""
    return min(2 * grid.shape[0] // 3, grid.shape[1] // 2)


class SphericalTransform(nn.Module):
    """Analysis and synthesis on one grid up to degree ``lmax`` - 1.

    Raises:
        ValueError: for a grid that is neither Gaussian nor equiangular with both poles, or not global.
    """

    quadrature: Tensor

    def __init__(self, grid: LatLonGrid, lmax: int | None = None) -> None:
        super().__init__()
        if grid.is_gaussian and grid.periodic:
            kind = "legendre-gauss"
        elif grid.is_global and math.isclose(grid.latitude[0], 90.0, abs_tol=1e-3):
            kind = "equiangular"
        else:
            raise ValueError(
                f"grid {grid.shape}: spherical harmonics expect a global Gaussian grid or rows at both poles"
            )
        self.grid, self.lmax = grid, lmax or triangular_limit(grid)
        self._analysis = RealSHT(*grid.shape, lmax=self.lmax, mmax=self.lmax, grid=kind, norm="ortho")
        self._synthesis = InverseRealSHT(*grid.shape, lmax=self.lmax, mmax=self.lmax, grid=kind, norm="ortho")
        weights = torch.as_tensor(grid.area_weights) * 4 * np.pi / (grid.shape[0] * grid.shape[1])
        self.register_buffer("quadrature", weights.view(-1, 1), persistent=False)

    def analysis(self, x: Tensor) -> Tensor:
        """Fields (..., lat, lon) to coefficients (..., l, m)."""
        return self._analysis(x)  # type: ignore[no-any-return]

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """Coefficients (..., l, m) to fields (..., lat, lon)."""
        return self._synthesis(coefficients)  # type: ignore[no-any-return]

    def synthesis_adjoint(self, x: Tensor) -> Tensor:
        """Unweighted inner products of the harmonics with fields: the transpose of :meth:`synthesis`.

            Shapes (..., lat, lon) to (..., l, m); exact on a Gaussian grid, where analysis is quadrature-weighted transposition,
        and good to a few per cent on a grid with poles, whose quadrature weights are not its cell areas.
        """
        return self.analysis(x / self.quadrature.to(x))

    @property
    def white_noise_power(self) -> float:
        """E|a_lm|² of unit white noise on the grid points, averaged over m: Σ ω² / 4π by the addition theorem."""
        return float((self.quadrature**2).sum() * self.grid.shape[1] / (4 * np.pi))


def degree_power(coefficients: Tensor) -> Tensor:
    """Contribution of each degree to the area mean of the square, shape (..., l)."""
    squares = coefficients.abs() ** 2
    return (2 * squares.sum(dim=-1) - squares[..., 0]) / (4 * torch.pi)
