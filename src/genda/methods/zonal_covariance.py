r"""A background-error covariance that is homogeneous along circles of latitude and free in everything else.

Errors e(c, φ, λ) of channels c have the covariance C(c, φ; c', φ'; λ - λ'), so that zonal wavenumbers do not correlate and

    B = F* diag_m(S_m) F,        S_m = E[ê_m ê_m*]   (channel · lat) × (channel · lat)

with F the unitary discrete Fourier transform along each circle. A few hundred errors estimate it only up to noise at long
distances; the product with a taper of great-circle distance (which keeps it positive: Schur) removes that. B is kept as C
itself, from which single elements are read; its root is the Cholesky factor of every S_m.

This is the strongest static covariance of the embedded experiment: 29 channels jointly, dependent on latitude.

References:
    Gaspari and Cohn 1999, Q. J. R. Meteorol. Soc. 125, 723; Bannister 2008, 134, 1951 (a review of such models).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import eval_legendre
from torch import Tensor

from genda.diffusion.gaussian import homogeneous_covariance
from genda.grid import EARTH_RADIUS, LatLonGrid
from genda.methods.localisation import gaspari_cohn


@dataclass(frozen=True)
class ZonalCovariance:
    """B by its elements.

    Attributes:
        lagged: C by difference of longitude, shape (n, n, lon) with n = channel · lat.
        shape: (channel, lat, lon).
    """

    lagged: Tensor
    shape: tuple[int, int, int]

    @staticmethod
    def fit(errors: Tensor, grid: LatLonGrid, radius: float = 5.0e6, nugget: float = 1e-4) -> ZonalCovariance:
        """From a sample of errors of mean zero.

        Args:
            errors: shape (sample, channel, lat, lon), normalised units.
            grid: a global grid.
            radius: great-circle distance in m from which on nothing correlates.
            nugget: share of each point's variance that is taken as uncorrelated, for the round-off of the factorisation.

        Raises:
            ValueError: for a grid that is not periodic, or fewer than two errors.
        """
        if not grid.periodic:
            raise ValueError("zonal covariance: found a regional grid, expected whole circles of latitude")
        if len(errors) < 2:
            raise ValueError(f"zonal covariance: found {len(errors)} errors, expected at least 2")
        count, channels, nlat, nlon = errors.shape
        waves = torch.fft.rfft(errors, norm="ortho").permute(3, 1, 2, 0)  # (m, channel, lat, sample)
        taper = gaspari_cohn(_distances(grid), radius).to(errors)  # (lat, lat, lon)
        lagged = errors.new_empty(channels, nlat, channels, nlat, nlon)
        for c in range(channels):
            for other in range(c + 1):
                block = waves[:, c] @ waves[:, other].mH / count  # (m, lat, lat)
                tapered = torch.fft.irfft(block.permute(1, 2, 0), n=nlon) * taper
                lagged[c, :, other] = tapered
                lagged[other, :, c] = tapered.flip(-1).roll(1, dims=-1).transpose(0, 1)
        variance = errors.pow(2).mean(dim=(0, 3)).flatten()
        lagged = lagged.view(channels * nlat, channels * nlat, nlon)
        lagged[..., 0].diagonal().add_(nugget * variance)
        return ZonalCovariance(lagged, (channels, nlat, nlon))

    @staticmethod
    def isotropic(errors: Tensor, grid: LatLonGrid, radius: float = math.pi * EARTH_RADIUS) -> ZonalCovariance:
        r"""The operational form: standard deviations by latitude, correlations homogeneous on the sphere.

        C(c, φ; c', φ'; Δλ) = s_c(φ) s_c'(φ') [Σ_l C_l(c, c') (2l + 1) P_l(cos θ) / 4π + what is left, uncorrelated], θ the angle
        between the points: for every degree one covariance of all variables and levels, so that each has its own
        spectrum and its own vertical and multivariate correlations. Arguments as :meth:`fit`.

        Reference: Derber and Bouttier 1999, Tellus A 51, 195; Parrish and Derber 1992, Mon. Wea. Rev. 120, 1747 (NMC method).
        """
        scale = errors.pow(2).mean(dim=(0, 3)).sqrt()  # (channel, lat)
        covariance, remainder = homogeneous_covariance(errors / scale.unsqueeze(-1), grid)
        degrees, channels = covariance.shape[:2]
        nlat, nlon = grid.shape
        distance = _distances(grid)
        degree = np.arange(degrees).reshape(-1, 1, 1, 1)
        legendre = eval_legendre(degree, np.cos(distance.numpy() / EARTH_RADIUS)) * (2 * degree + 1) / (4 * np.pi)
        kernel = (torch.as_tensor(legendre) * gaspari_cohn(distance, radius)).to(errors)
        lagged = torch.einsum("lcd,labm->cadbm", covariance.to(errors), kernel)
        lagged *= scale.view(channels, nlat, 1, 1, 1) * scale.view(1, 1, channels, nlat, 1)
        lagged = lagged.reshape(channels * nlat, channels * nlat, nlon)
        lagged[..., 0].diagonal().add_((scale**2 * remainder.to(errors)).flatten())
        return ZonalCovariance(lagged, (channels, nlat, nlon))

    @cached_property
    def spectra(self) -> Tensor:
        """S_m, complex, shape (m, n, n)."""
        size, _, nlon = self.lagged.shape
        dtype = torch.complex64 if self.lagged.dtype == torch.float32 else torch.complex128
        spectra = torch.empty(nlon // 2 + 1, size, size, dtype=dtype)
        for row in range(size):  # one at a time: all at once would need the memory twice
            spectra[:, row] = torch.fft.rfft(self.lagged[row]).T
        return spectra

    @cached_property
    def roots(self) -> Tensor:
        """Cholesky factors of S_m, complex, shape (m, n, n)."""
        return torch.stack([torch.linalg.cholesky(spectrum) for spectrum in self.spectra])

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def apply(self, v: Tensor) -> Tensor:
        """L v, (batch, size) to (batch, channel, lat, lon)."""
        waves = self._waves(v.view(-1, *self.shape))
        return self._fields(self.roots.to(waves.dtype) @ waves)

    def transpose(self, x: Tensor) -> Tensor:
        """Lᵀ x, (batch, channel, lat, lon) to (batch, size)."""
        waves = self._waves(x)
        return self._fields(self.roots.to(waves.dtype).mH @ waves).flatten(1)

    def covariance(self, x: Tensor) -> Tensor:
        """B x for fields (batch, channel, lat, lon)."""
        waves = self._waves(x)
        return self._fields(self.spectra.to(waves.dtype) @ waves)

    def elements(self, index: Tensor) -> Tensor:
        """B between elements of the flattened state, (k,) to (k, k)."""
        row, lon = index // self.shape[2], index % self.shape[2]
        return self.lagged[row.view(-1, 1), row, (lon.view(-1, 1) - lon) % self.shape[2]]

    def _waves(self, x: Tensor) -> Tensor:
        """(batch, channel, lat, lon) to (m, n, batch)."""
        waves: Tensor = torch.fft.rfft(x, norm="ortho")
        return waves.permute(3, 1, 2, 0).flatten(1, 2)

    def _fields(self, waves: Tensor) -> Tensor:
        channel, nlat, nlon = self.shape
        rows = waves.view(-1, channel, nlat, waves.shape[-1]).permute(3, 1, 2, 0)
        fields: Tensor = torch.fft.irfft(rows, n=nlon, norm="ortho")
        return fields


def _distances(grid: LatLonGrid) -> Tensor:
    """Great-circle distance in m between rows at every difference of longitude, shape (lat, lat, lon)."""
    lat = torch.deg2rad(torch.as_tensor(grid.latitude, dtype=torch.float64))
    lag = torch.deg2rad(torch.as_tensor(grid.longitude, dtype=torch.float64) - grid.longitude[0])
    a, b = lat.view(-1, 1, 1), lat.view(1, -1, 1)
    haversine = torch.sin((a - b) / 2) ** 2 + torch.cos(a) * torch.cos(b) * torch.sin(lag / 2) ** 2
    return 2 * EARTH_RADIUS * torch.asin(haversine.clamp(0, 1).sqrt())
