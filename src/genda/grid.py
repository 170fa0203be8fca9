"""Latitude–longitude grids: Gaussian, equiangular or any regular grid, global or regional.

Inside the package latitude runs north to south and longitude eastward from the grid's western edge in [0, 360),
whatever the order in a file. A Gaussian grid carries its quadrature weights, every other grid the exact area of
its cells, so that area means are integrals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EARTH_RADIUS = 6.371229e6
"""m, the sphere of the ECMWF and GRIB definitions."""
_TOLERANCE = 1e-3  # degrees: float32 files round coordinates at 1e-5, GRIB at 1e-3


def unit_vectors(latitude: Array, longitude: Array) -> Array:
    """Points on the unit sphere, shape (..., 3), of degrees north and east."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


@dataclass(frozen=True)
class LatLonGrid:
    """A tensor-product grid.

    Attributes:
        latitude: degrees north, strictly descending.
        longitude: degrees east, strictly ascending and evenly spaced, first value in [0, 360).

    Raises:
        ValueError: where a coordinate is not finite, not monotonic, out of range or unevenly spaced.
    """

    latitude: tuple[float, ...]
    longitude: tuple[float, ...]

    def __post_init__(self) -> None:
        lat, lon = np.asarray(self.latitude), np.asarray(self.longitude)
        for name, values in (("latitude", lat), ("longitude", lon)):
            if values.ndim != 1 or values.size < 2:
                raise ValueError(f"{name}: found shape {values.shape}, expected one dimension with at least 2 points")
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: found a value that is not finite")
        if np.abs(lat).max() > 90 + _TOLERANCE:
            raise ValueError(f"latitude: found {lat[np.abs(lat).argmax()]:g}, expected values within ±90 degrees")
        if (np.diff(lat) >= 0).any():
            raise ValueError("latitude: expected strictly descending values without duplicates")
        steps = np.diff(lon)
        if (steps <= 0).any() or np.ptp(steps) > 2 * _TOLERANCE:
            raise ValueError("longitude: expected strictly ascending, evenly spaced values without duplicates")
        if not 0 <= lon[0] < 360 or lon[-1] - lon[0] >= 360 - _TOLERANCE:
            raise ValueError(
                f"longitude: found {lon[0]:g} to {lon[-1]:g}, expected a start in [0, 360) and less than one turn"
            )

    def __str__(self) -> str:
        ends = [f"{values[0]:g} to {values[-1]:g}" for values in (self.latitude, self.longitude)]
        return f"{len(self.latitude)} rows from {ends[0]} and {len(self.longitude)} columns from {ends[1]} degrees"

    @staticmethod
    def gaussian(nlat: int, nlon: int) -> LatLonGrid:
        """Gauss–Legendre latitudes, longitudes from 0."""
        nodes, _ = np.polynomial.legendre.leggauss(nlat)
        return LatLonGrid._of(np.degrees(np.arcsin(nodes))[::-1], np.arange(nlon) * 360.0 / nlon)

    @staticmethod
    def equiangular(nlat: int, nlon: int) -> LatLonGrid:
        """Evenly spaced latitudes; an odd ``nlat`` includes both poles (121×240), an even one straddles them (128×256)."""
        step = 180.0 / (nlat - 1) if nlat % 2 else 180.0 / nlat
        edge = 90.0 if nlat % 2 else 90.0 - step / 2
        return LatLonGrid._of(edge - step * np.arange(nlat), np.arange(nlon) * 360.0 / nlon)

    @staticmethod
    def from_coordinates(
        latitude: Sequence[float] | Array, longitude: Sequence[float] | Array
    ) -> tuple[LatLonGrid, NDArray[np.intp], NDArray[np.intp]]:
        """The grid of a file's coordinates in any order and longitude range.

        Returns:
            the grid, and the row and column orders: ``values[..., rows, :][..., columns]`` is on that grid.

        Raises:
            ValueError: for duplicates, uneven longitudes or values that are no latitude or longitude.
        """
        lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
        if lat.ndim != 1 or lon.ndim != 1:
            raise ValueError(
                f"latitude and longitude: found shapes {lat.shape} and {lon.shape}, expected one dimension each"
            )
        if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
            raise ValueError("latitude or longitude: found a value that is not finite")
        if np.abs(lon).max(initial=0.0) > 720:
            raise ValueError(f"longitude: found {lon[np.abs(lon).argmax()]:g}, expected degrees east")
        rows = np.argsort(-lat, kind="stable")
        wrapped = np.mod(np.where(np.abs(lon - np.round(lon / 360) * 360) < 1e-9, 0.0, lon), 360.0)
        columns = np.argsort(wrapped, kind="stable")
        ordered = wrapped[columns]
        gaps = np.diff(ordered, append=ordered[0] + 360.0)
        # A region that crosses the prime meridian starts after its widest gap; a global grid starts at its first column.
        if gaps.max() > 1.5 * np.median(gaps) and gaps.argmax() != gaps.size - 1:
            columns = np.roll(columns, -(int(gaps.argmax()) + 1))
            ordered = wrapped[columns]
            ordered = ordered + 360.0 * (ordered < ordered[0])
        return LatLonGrid._of(lat[rows], ordered), rows, columns

    @staticmethod
    def _of(latitude: NDArray[np.floating], longitude: NDArray[np.floating]) -> LatLonGrid:
        return LatLonGrid(tuple(float(v) for v in latitude), tuple(float(v) for v in longitude))

    def coarsened(self, factor: int) -> LatLonGrid:
        """The grid of ``factor`` × ``factor`` blocks of cells, each standing at the mean of its coordinates.

        Raises:
            ValueError: if the blocks do not fill the grid.
        """
        nlat, nlon = self.shape
        if factor < 1 or nlat % factor or nlon % factor:
            raise ValueError(f"coarsening factor: found {factor}, expected a divisor of {nlat} and {nlon}")
        return LatLonGrid._of(
            np.reshape(self.latitude, (-1, factor)).mean(axis=1), np.reshape(self.longitude, (-1, factor)).mean(axis=1)
        )

    def within(self, north: float, west: float, south: float, east: float) -> LatLonGrid:
        """The points of a rectangle in degrees, its edges included; one that crosses the prime meridian may start west of it.

        Raises:
            ValueError: where fewer than two rows or columns lie inside, or edges are in the wrong order.
        """
        if not north > south or not 0 < east - west <= 360:
            found = f"found {north:g}/{west:g}/{south:g}/{east:g}"
            raise ValueError(f"area: {found}, expected north above south and west before east")
        lat, lon = np.asarray(self.latitude), np.asarray(self.longitude)
        inside = np.mod(lon - west + _TOLERANCE, 360.0) <= east - west + 2 * _TOLERANCE
        rows = (lat <= north + _TOLERANCE) & (lat >= south - _TOLERANCE)
        return LatLonGrid.from_coordinates(lat[rows], lon[inside])[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return len(self.latitude), len(self.longitude)

    @property
    def longitude_step(self) -> float:
        return (self.longitude[-1] - self.longitude[0]) / (len(self.longitude) - 1)

    @property
    def spacing(self) -> float:
        """Distance between rows, m."""
        return float(np.radians(np.median(-np.diff(self.latitude))) * EARTH_RADIUS)

    @property
    def periodic(self) -> bool:
        """Whether the last column is the western neighbour of the first."""
        return abs(self.longitude_step * len(self.longitude) - 360.0) < 360.0 * _TOLERANCE

    @cached_property
    def is_gaussian(self) -> bool:
        nodes, _ = np.polynomial.legendre.leggauss(len(self.latitude))
        return bool(np.allclose(np.degrees(np.arcsin(nodes))[::-1], self.latitude, atol=_TOLERANCE))

    @cached_property
    def is_global(self) -> bool:
        """Whether rows reach both poles to within one row spacing and columns close the circle."""
        lat = np.asarray(self.latitude)
        reach = max(lat[0] - lat[1], lat[-2] - lat[-1])
        return self.periodic and lat[0] + reach >= 90.0 - _TOLERANCE and lat[-1] - reach <= -90.0 + _TOLERANCE

    @cached_property
    def area_weights(self) -> Array:
        """Weight of each row, shape (latitudes,), mean 1: quadrature weights or exact cell areas."""
        if self.is_gaussian:
            weights = self._gaussian_weights
        else:
            sines = np.sin(np.radians(self.row_edges))
            weights = sines[:-1] - sines[1:]
        return np.asarray(weights / weights.mean())

    @property
    def _gaussian_weights(self) -> Array:
        return np.asarray(np.polynomial.legendre.leggauss(len(self.latitude))[1][::-1])

    @cached_property
    def row_edges(self) -> Array:
        """Latitudes between rows, shape (latitudes + 1,), from north to south; a global grid ends at the poles.

        Between them lies the area that :attr:`area_weights` gives a row. On a Gaussian grid these are not the midpoints; they
        separate its latitudes all the same (Chebyshev, Markov, Stieltjes).
        """
        if self.is_gaussian:
            return np.degrees(np.arcsin(1.0 - np.concatenate([[0.0], self._gaussian_weights.cumsum()]).clip(max=2.0)))
        lat = np.asarray(self.latitude)
        inner = 0.5 * (lat[:-1] + lat[1:])
        north = 90.0 if self.is_global else min(90.0, lat[0] + (lat[0] - inner[0]))
        south = -90.0 if self.is_global else max(-90.0, lat[-1] - (inner[-1] - lat[-1]))
        return np.concatenate([[north], inner, [south]])

    def contains(self, latitude: Array, longitude: Array) -> NDArray[np.bool_]:
        """Which points lie inside the grid's cells; every valid point does on a global grid."""
        inside = np.asarray((np.abs(latitude) <= 90.0) & np.isfinite(longitude))
        if not self.is_global:
            inside &= (latitude <= self.row_edges[0]) & (latitude >= self.row_edges[-1])
        if not self.periodic:
            half = self.longitude_step / 2
            offset = np.mod(longitude - self.longitude[0] + half, 360.0)
            inside &= offset <= self.longitude[-1] - self.longitude[0] + 2 * half
        return inside

    def fractional_index(self, latitude: Array, longitude: Array) -> tuple[Array, Array]:
        """Row and column of points as real numbers; rows beyond the last latitude reach towards the next one."""
        lat = np.asarray(self.latitude)
        rows = np.arange(lat.size, dtype=np.float64)
        row = np.interp(-latitude, -lat, rows)
        steps = [lat[0] - lat[1], lat[-2] - lat[-1]]
        if self.is_global and lat[0] < 90.0 - _TOLERANCE:  # the next row lies across the pole, on the opposite meridian
            steps = [2 * (90.0 - lat[0]), 2 * (90.0 + lat[-1])]
        row = np.where(latitude > lat[0], (lat[0] - latitude) / steps[0], row)
        row = np.where(latitude < lat[-1], lat.size - 1 + (lat[-1] - latitude) / steps[1], row)
        offset = np.mod(longitude - self.longitude[0], 360.0)
        if not self.periodic:  # just west of the first column is a small negative index, not a full turn
            offset = np.where(
                offset > self.longitude[-1] - self.longitude[0] + self.longitude_step, offset - 360.0, offset
            )
        return row, offset / self.longitude_step
