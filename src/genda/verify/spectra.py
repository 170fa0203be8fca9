"""Power and kinetic-energy spectra whose sum is the area mean of what they decompose.

By zonal wavenumber m (any periodic grid; rows weighted by area) and total wavenumber l (spherical harmonics):

    Σ_m P_m = Σ_l P_l = <x²>,       Σ_l E_l = <½ (u² + v²)>

The wind is a vector: u and v taken as scalars are discontinuous at the poles and put spurious power at every degree.
Its three Cartesian components are smooth scalars with the same squared length, so E_l is half the sum of their power.
The rotational wind of a streamfunction of degree l stays in degree l; the (small) divergent wind of a potential of
degree l goes to l ± 1, a shift that the vorticity–divergence form (Lambert 1984) does not have and no plot shows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from genda.grid import LatLonGrid
from genda.sphere import SphericalTransform, degree_power, triangular_limit
from genda.verify.scores import area_mean


def resolved_degrees(grid: LatLonGrid) -> int:
    """How many degrees have a power that the grid can tell: one per row of a Gaussian grid, else two thirds of that."""
    return min(grid.shape[0], grid.shape[1] // 2) if grid.is_gaussian else triangular_limit(grid)


@lru_cache(maxsize=8)
def _transform(grid: LatLonGrid, lmax: int) -> SphericalTransform:
    return SphericalTransform(grid, lmax).double()


def zonal_power(values: Tensor, grid: LatLonGrid) -> Tensor:
    """Power by zonal wavenumber, averaged over rows by area.

    Args:
        values: shape (..., lat, lon) on a periodic grid.

    Returns:
        shape (..., lon // 2 + 1): index m is zonal wavenumber m; units of the field squared.

    Raises:
        ValueError: for a grid that does not close the circle.
    """
    if not grid.periodic:
        west, east = grid.longitude[0], grid.longitude[-1]
        raise ValueError(f"grid: found longitudes {west:g} to {east:g}, expected a full circle for spectra")
    nlon = grid.shape[1]
    power = torch.fft.rfft(values.double(), dim=-1).abs() ** 2 / nlon**2
    power[..., 1 : (nlon + 1) // 2] *= 2  # every wavenumber but 0 and Nyquist stands for ± m
    weights = torch.as_tensor(grid.area_weights, device=values.device)
    mean: Tensor = (power * weights[:, None]).sum(dim=-2) / weights.sum()
    return mean


def spherical_power(values: Tensor, grid: LatLonGrid, lmax: int | None = None) -> Tensor:
    """Power by total wavenumber.

    Args:
        values: shape (..., lat, lon) on a global grid with spherical harmonics.
        lmax: number of degrees; default all that the grid resolves.

    Returns:
        shape (..., lmax): index l is degree l; units of the field squared.
    """
    transform = _transform(grid, lmax or resolved_degrees(grid)).to(values.device)
    return degree_power(transform.analysis(values.double()))


def kinetic_energy_spectrum(u: Tensor, v: Tensor, grid: LatLonGrid, lmax: int | None = None) -> Tensor:
    """Kinetic energy per unit mass by total wavenumber.

    Args:
        u, v: eastward and northward wind, shape (..., lat, lon), m s⁻¹.
        lmax: number of degrees; default all that the grid resolves.

    Returns:
        shape (..., lmax), m² s⁻²; its sum is the area mean of ½ (u² + v²).
    """
    lat = torch.deg2rad(torch.as_tensor(grid.latitude, dtype=torch.float64, device=u.device)).view(-1, 1)
    lon = torch.deg2rad(torch.as_tensor(grid.longitude, dtype=torch.float64, device=u.device)).view(1, -1)
    u, v = u.double(), v.double()
    x = -u * lon.sin() - v * lat.sin() * lon.cos()
    y = u * lon.cos() - v * lat.sin() * lon.sin()
    z = v * lat.cos()
    px, py, pz = (spherical_power(component, grid, lmax) for component in (x, y, z))
    return 0.5 * (px + py + pz)


BANDS = {"l 1-7": slice(1, 8), "l 8-15": slice(8, 16), "l 16+": slice(16, None)}
"""Planetary, synoptic and smaller waves by total wavenumber."""


def kinetic_energy_bands(u: Tensor, v: Tensor, grid: LatLonGrid) -> Tensor:
    """Kinetic energy per unit mass in each of :data:`BANDS`, shapes (..., lat, lon) to (..., band), m² s⁻²."""
    spectrum = kinetic_energy_spectrum(u, v, grid)
    return torch.stack([spectrum[..., band].sum(dim=-1) for band in BANDS.values()], dim=-1)


def zonal_kinetic_energy_spectrum(u: Tensor, v: Tensor, grid: LatLonGrid) -> Tensor:
    """Kinetic energy by zonal wavenumber, shape (..., lon // 2 + 1), m² s⁻²; for grids without spherical harmonics."""
    return 0.5 * (zonal_power(u, grid) + zonal_power(v, grid))


def mean_square(values: Tensor, grid: LatLonGrid) -> Tensor:
    """The area mean of x², which spectra sum to, shape (...)."""
    return area_mean(values.double() ** 2, np.asarray(grid.area_weights))
