r"""A background-error covariance that is homogeneous along circles of latitude and free in everything else.

Errors e(c, φ, λ) of channels c have the covariance C(c, φ; c', φ'; λ - λ'), so that zonal wavenumbers do not correlate and

    B = F* diag_m(S_m) F,        S_m = E[ê_m ê_m*]   (channel · lat) × (channel · lat)

with F the unitary discrete Fourier transform along each circle. A few hundred errors estimate it only up to noise at long
distances; the product with a taper of great-circle distance (which keeps it positive: Schur) removes that. The root of B is
the Cholesky factor of every S_m.

This is the strongest static covariance of the embedded experiment: 29 channels jointly, dependent on latitude.

References:
    Gaspari and Cohn 1999, Q. J. R. Meteorol. Soc. 125, 723; Bannister 2008, 134, 1951 (a review of such models).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genda.grid import EARTH_RADIUS, LatLonGrid
from genda.methods.localisation import gaspari_cohn


@dataclass(frozen=True)
class ZonalCovariance:
    """B by its roots, one for every zonal wavenumber.

    Attributes:
        roots: lower triangular, complex, shape (m, n, n) with n = channel · lat.
        shape: (channel, lat, lon).
    """

    roots: Tensor
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
        spectra = torch.empty(nlon // 2 + 1, channels, nlat, channels, nlat, dtype=waves.dtype)
        for c in range(channels):
            for other in range(c + 1):
                block = waves[:, c] @ waves[:, other].mH / count  # (m, lat, lat)
                lagged = torch.fft.irfft(block.permute(1, 2, 0), n=nlon) * taper
                tapered = torch.fft.rfft(lagged).permute(2, 0, 1)
                spectra[:, c, :, other, :] = tapered
                spectra[:, other, :, c, :] = tapered.mH
        size = channels * nlat
        roots = spectra.view(-1, size, size)
        variance = errors.pow(2).mean(dim=(0, 3)).flatten()
        roots.diagonal(dim1=1, dim2=2).add_((nugget * variance).to(roots.dtype))
        for m in range(len(roots)):  # one at a time: all at once would need the memory twice
            roots[m] = torch.linalg.cholesky(roots[m])
        return ZonalCovariance(roots, (channels, nlat, nlon))

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
        return self.apply(self.transpose(x))

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
