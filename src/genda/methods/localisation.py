r"""Localisation: how much an observation may say about a point, as a function of their distance.

Points have coordinates in a space where straight distance means something: metres on a line, unit vectors times the radius on a
sphere (chords), a circle for a periodic ring. Where an observation lies follows from its operator: the mean of the points
it draws on, weighted as it weighs them, so that columns, coarse cells and interpolated points need nothing extra.

Reference: Gaspari and Cohn 1999, Q. J. R. Meteorol. Soc. 125, 723, Eq. 4.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from genda.grid import EARTH_RADIUS, LatLonGrid, unit_vectors
from genda.observations.operators import LinearOperator
from genda.problem import Source

Array = NDArray[np.float64]


def gaspari_cohn(distance: Tensor, radius: float) -> Tensor:
    """The fifth-order taper with support ``radius``: 1 at distance 0, 0.208 at half the radius, 0 from the radius on."""
    r = (2 * distance / radius).clamp(max=2.0)
    near = 1 + r * r * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    far = 4 + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12)))) - 2 / (3 * r.clamp(min=1e-12))
    return torch.where(r <= 1, near, far).clamp(min=0.0)


def sphere(grid: LatLonGrid) -> Array:
    """Coordinates of the points of a grid in m, shape (lat * lon, 3)."""
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    return np.asarray(EARTH_RADIUS * unit_vectors(latitude, longitude).reshape(-1, 3))


def ring(size: int) -> Array:
    """Coordinates of a periodic ring of unit spacing, shape (size, 2); chords are arcs for neighbours."""
    angle = 2 * np.pi * np.arange(size) / size
    return np.asarray(size / (2 * np.pi) * np.stack([np.cos(angle), np.sin(angle)], axis=-1))


def plane(rows: int, columns: int) -> Array:
    """Coordinates of a doubly periodic plane of unit spacing, shape (rows * columns, 4): a circle for each direction."""
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.concatenate([ring(rows)[y.ravel()], ring(columns)[x.ravel()]], axis=1)


@dataclass(frozen=True)
class Localisation:
    """A taper on given points.

    Attributes:
        coordinates: of the points, shape (lat * lon, dimension).
        radius: of the taper's support, in the units of the coordinates.
    """

    coordinates: Array
    radius: float

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"localisation radius: found {self.radius:g}, expected a positive length")

    @cached_property
    def between_points(self) -> LinearOperator:
        """The taper between all points, as a product with planes (batch, 1, 1, lat * lon)."""
        return LinearOperator(self.tapers(self.coordinates, self.coordinates), (1, 1, len(self.coordinates)))

    def root(self, least: float = 1e-3) -> Tensor:
        """L of the taper between all points, ρ ≈ L Lᵀ, shape (lat * lon, q).

        Its leading eigenvectors, of which a support as large as a continent leaves few. Rows are brought back to unit length, so
        that a covariance keeps its variances when it is tapered.

        Args:
            least: share of the largest eigenvalue below which they are left out.
        """
        values, vectors = torch.linalg.eigh(torch.as_tensor(self.between_points.matrix.toarray()))
        kept = values > least * values[-1]
        root = vectors[:, kept] * values[kept].sqrt()
        normalised: Tensor = root / root.norm(dim=1, keepdim=True)
        return normalised

    def positions(self, source: Source) -> Array:
        """Where the observations of a source lie, shape (m, dimension).

        Raises:
            ValueError: for an operator that is not a sparse matrix.
        """
        if not isinstance(source.operator, LinearOperator):
            raise ValueError(
                f"{source.name}: found {type(source.operator).__name__}, expected a linear operator to localise"
            )
        plane = source.operator.shape[1:]
        weights = abs(source.operator.matrix).tocoo()
        cells = int(np.prod(plane))
        by_point = sp.csr_array((weights.data, (weights.row, weights.col % cells)), shape=(weights.shape[0], cells))
        return np.asarray((by_point @ self.coordinates) / by_point.sum(axis=1).reshape(-1, 1))

    def tapers(self, points: Array, positions: Array | cKDTree) -> sp.csr_array:
        """Taper between points and positions as a sparse matrix, shape (points, positions).

        Positions that serve several blocks of points can be given as the tree of their coordinates.
        """
        tree = positions if isinstance(positions, cKDTree) else cKDTree(positions)
        pairs = cKDTree(points).sparse_distance_matrix(tree, self.radius, output_type="coo_matrix")
        values = gaspari_cohn(torch.as_tensor(pairs.data), self.radius).numpy()
        return sp.csr_array((values, (pairs.row, pairs.col)), shape=pairs.shape)
