"""Linear observation operators as sparse matrices on the normalised state.

Interpolation to points, whole columns, coarse grids and other grids are all weighted sums of grid values; one class
applies them, their adjoints and their gradients at a cost linear in the number of observations,

    y = H x,    H: (batch, channel, lat, lon) -> (batch, observation).

Builders give H in normalised units: with s the channel's std and s_o the scale of an observation, a weight w on a
physical value is w s / s_o on a normalised one, and an observed value enters as (y - H mean) / s_o.

Horizontal interpolation takes values across the pole from the opposite meridian, with the sign of u and v turned;
on a regional grid the outermost rows and columns repeat. Bicubic means Keys' kernel with a = -1/2 (third-order
accurate), the kernel of Catmull and Rom; vertical interpolation is linear in log pressure.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.grid import LatLonGrid
from genda.observations.table import between_levels
from genda.variables import channels as parse_channels

Array = NDArray[np.float64]
Interpolation = Literal["bilinear", "bicubic"]
ROUND_OFF = 1e-12
"""Weights below this share of the largest are interpolation's round-off."""


class Operator(Protocol):
    """Maps states (batch, channel, lat, lon) to observations (batch, m), differentiably.

    ``tangent`` is H'(x) dx; where ``linear`` is true the operator also has ``adjoint(y)``, (batch, m) to states.
    """

    @property
    def linear(self) -> bool: ...

    def __call__(self, x: Tensor) -> Tensor: ...

    def tangent(self, x: Tensor, dx: Tensor) -> Tensor: ...


class _SparseProduct(torch.autograd.Function):
    """x -> x Mᵀ for sparse M, with the stored transpose as its gradient; both may be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.matrices = (matrix, transpose)
        return (matrix @ x.T).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        matrix, transpose = ctx.matrices
        return _SparseProduct.apply(gradient, transpose, matrix), None, None  # type: ignore[no-untyped-call]


class LinearOperator:
    """A sparse matrix acting on flattened states.

    Args:
        matrix: shape (observations, channel * lat * lon).
        shape: (channel, lat, lon).
    """

    linear = True

    def __init__(self, matrix: sp.csr_array, shape: tuple[int, int, int]) -> None:
        self.matrix = matrix.tocsr().astype(np.float64)
        self.matrix.data[abs(self.matrix.data) < ROUND_OFF * abs(self.matrix.data).max(initial=0.0)] = 0.0
        self.matrix.eliminate_zeros()  # an observation at a grid point reads that point alone
        self.shape = shape
        if self.matrix.shape[1] != int(np.prod(shape)):
            raise ValueError(
                f"operator: found {self.matrix.shape[1]} columns, expected {int(np.prod(shape))} for state {shape}"
            )
        self._cache: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, channel, lat, lon) to (batch, m)."""
        matrix, transpose = self._tensors(x)
        return _SparseProduct.apply(x.flatten(1), matrix, transpose)  # type: ignore[no-untyped-call, no-any-return]

    def tangent(self, x: Tensor, dx: Tensor) -> Tensor:
        return self(dx)

    def adjoint(self, y: Tensor) -> Tensor:
        """(batch, m) to (batch, channel, lat, lon): the transpose."""
        matrix, transpose = self._tensors(y)
        return _SparseProduct.apply(y, transpose, matrix).view(len(y), *self.shape)  # type: ignore[no-untyped-call, no-any-return]

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._cache:
            self._cache[key] = (_csr(self.matrix, like), _csr(sp.csr_array(self.matrix.T), like))
        return self._cache[key]


@dataclass(frozen=True)
class Stack:
    """Several operators observed together, in order; see :func:`stack`."""

    operators: tuple[Operator, ...]

    linear = False

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([operator(x) for operator in self.operators], dim=-1)

    def tangent(self, x: Tensor, dx: Tensor) -> Tensor:
        return torch.cat([operator.tangent(x, dx) for operator in self.operators], dim=-1)


def stack(operators: Sequence[Operator]) -> Operator:
    """Several operators as one, observations in the same order; sparse matrices become a single one.

    Raises:
        ValueError: for none, or for matrices on states of different shapes.
    """
    if not operators:
        raise ValueError("stack: found no operators, expected at least one")
    sparse = [operator for operator in operators if isinstance(operator, LinearOperator)]
    shapes = sorted({operator.shape for operator in sparse})
    if len(shapes) > 1:
        raise ValueError(f"stack: found operators on states {', '.join(map(str, shapes))}, expected one shape")
    if len(sparse) < len(operators):
        return Stack(tuple(operators))
    return sparse[0] if len(sparse) == 1 else LinearOperator(sp.vstack([o.matrix for o in sparse]).tocsr(), shapes[0])


class Nonlinear:
    """A differentiable function of another operator's output, such as wind speed from u and v.

    Args:
        function: (batch, m) to (batch, k).
        inner: the operator it acts on.
    """

    linear = False

    def __init__(self, function: Callable[[Tensor], Tensor], inner: Operator) -> None:
        self.function, self.inner = function, inner

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))

    def tangent(self, x: Tensor, dx: Tensor) -> Tensor:
        """H'(x) dx."""
        return pushed(self.function, self.inner(x), self.inner.tangent(x, dx))


class Composed:
    """Observations of what a function makes of x: another operator on its forecast (4D-Var), or on what a latent decodes to.

    Args:
        function: (batch, channel, lat, lon) to states that ``inner`` observes, differentiable.
        inner: the operator on these.
    """

    linear = False

    def __init__(self, function: Callable[[Tensor], Tensor], inner: Operator) -> None:
        self.function, self.inner = function, inner

    def __call__(self, x: Tensor) -> Tensor:
        return self.inner(self.function(x))

    def tangent(self, x: Tensor, dx: Tensor) -> Tensor:
        """H'(f(x)) f'(x) dx."""
        return self.inner.tangent(self.function(x), pushed(self.function, x, dx))


def pushed(function: Callable[[Tensor], Tensor], x: Tensor, dx: Tensor) -> Tensor:
    """f'(x) dx, as the derivative of the vector-Jacobian product with respect to its vector.

    Raises:
        ValueError: for a function that records no gradient.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = function(x)
        if not value.requires_grad:
            raise ValueError(
                "operator: found a function without gradient, expected torch functions of the state throughout"
            )
        cotangent = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, x, cotangent, create_graph=True)
        (result,) = torch.autograd.grad(pulled, cotangent, dx)
    return result


def points(
    grid: LatLonGrid,
    channels: Sequence[str],
    variable: Sequence[str],
    pressure: Array,
    latitude: Array,
    longitude: Array,
    interpolation: Interpolation = "bicubic",
) -> sp.csr_array:
    """Physical-unit interpolation to points, one row per observation.

    Args:
        grid: of the state.
        channels: of the state, in order.
        variable: field identifier of each observation, ("t", "z", "t2m", ...).
        pressure: Pa; ignored for surface fields.
        latitude, longitude: degrees.
        interpolation: in the horizontal.

    Returns:
        shape (observation, channel * lat * lon). Apply :func:`normalised` to get an operator.

    Raises:
        ValueError: for a variable the state does not hold, a pressure outside its levels or a point outside its domain.
    """
    outside = ~grid.contains(np.asarray(latitude), np.asarray(longitude))
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(f"observation {i}: found {latitude[i]:g}°N {longitude[i]:g}°E outside the model's domain")
    channel_weights, signs = _vertical(channels, list(variable), np.asarray(pressure, dtype=np.float64))
    scalar, turned = (_horizontal(grid, latitude, longitude, interpolation, vector) for vector in (False, True))
    rows = sp.diags_array(np.where(signs, 0.0, 1.0)) @ scalar + sp.diags_array(np.where(signs, 1.0, 0.0)) @ turned
    return _row_kron(channel_weights, sp.csr_array(rows))


def coarse(
    grid: LatLonGrid,
    channels: Sequence[str],
    target: LatLonGrid,
    method: Literal["bicubic", "bilinear", "area"] = "area",
) -> sp.csr_array:
    """All channels on a coarser or another grid, ordered (channel, lat, lon): area averages or interpolation.

    Area averaging is conservative: weights are overlaps of the cells of both grids.

    Returns:
        shape (channel * target cells, channel * lat * lon), physical units; normalised units are the same.
    """
    if method == "area":
        blocks = [_overlap(grid, target)] * len(channels)
    else:
        latitude, longitude = (a.ravel() for a in np.meshgrid(target.latitude, target.longitude, indexing="ij"))
        by_sign = {turned: _horizontal(grid, latitude, longitude, method, turned) for turned in (False, True)}
        blocks = [by_sign[c.field.id in VECTOR_FIELDS] for c in parse_channels(channels)]
    return sp.csr_array(sp.block_diag(blocks, format="csr"))


def normalised(
    matrix: sp.csr_array, grid: LatLonGrid, std: Tensor, scale: Array | None = None
) -> tuple[LinearOperator, Array]:
    """An operator on normalised states from one on physical states.

    Args:
        matrix: physical weights, shape (m, channel * lat * lon).
        grid: of the state.
        std: of each channel, shape (channel,).
        scale: s_o of each observation; by default the std of the channels it draws on, weighted as it weighs them.

    Returns:
        the operator and s_o, shape (m,).
    """
    cells = grid.shape[0] * grid.shape[1]
    channel_std = std.double().numpy()
    per_column = np.repeat(channel_std, cells)
    if scale is None:
        absolute = abs(matrix)
        scale = (absolute @ per_column) / np.maximum(absolute @ np.ones(matrix.shape[1]), 1e-300)
    weighted = sp.diags_array(1.0 / scale) @ matrix @ sp.diags_array(per_column)
    return LinearOperator(weighted, (len(channel_std), *grid.shape)), scale


VECTOR_FIELDS = frozenset({"u", "v", "u10", "v10"})
"""Fields whose sign turns when they are read from beyond a pole."""


def _csr(matrix: sp.csr_array, like: Tensor) -> Tensor:
    with warnings.catch_warnings():  # "beta state": the products used here are the plain ones
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr, dtype=torch.int64),
            torch.as_tensor(matrix.indices, dtype=torch.int64),
            torch.as_tensor(matrix.data, dtype=like.dtype),
            size=matrix.shape,
            device=like.device,
            check_invariants=False,
        )


def _row_kron(channel_weights: sp.csr_array, horizontal: sp.csr_array) -> sp.csr_array:
    """Row-wise Kronecker product: (m, channel) and (m, cells) to (m, channel * cells)."""
    cells = horizontal.shape[1]
    channel_weights = sp.csr_array(channel_weights)
    levels = np.diff(channel_weights.indptr)
    row_of = np.repeat(np.arange(channel_weights.shape[0]), levels)
    picked = sp.csr_array(horizontal[row_of])  # one copy of the horizontal stencil per level used
    counts = np.diff(picked.indptr)
    columns = picked.indices + np.repeat(channel_weights.indices, counts) * cells
    data = picked.data * np.repeat(channel_weights.data, counts)
    rows = np.repeat(row_of, counts)
    return sp.csr_array((data, (rows, columns)), shape=(channel_weights.shape[0], channel_weights.shape[1] * cells))


def _vertical(channels: Sequence[str], variable: list[str], pressure: Array) -> tuple[sp.csr_array, NDArray[np.bool_]]:
    """Weights of each observation on the channels (m, channel), and whether it is a vector component."""
    parsed = parse_channels(channels)
    names = np.asarray(variable)
    entries: list[tuple[NDArray[np.intp], NDArray[np.intp], Array]] = []
    for name in dict.fromkeys(variable):
        members = [(c.pressure, i) for i, c in enumerate(parsed) if c.field.id == name]
        if not members:
            raise ValueError(f"observed variable {name!r} is not in the model: found {', '.join(channels)}")
        rows = np.flatnonzero(names == name)
        if members[0][0] is None:
            entries.append((rows, np.full(rows.size, members[0][1]), np.ones(rows.size)))
            continue
        ordered = sorted((float(p or 0.0), i) for p, i in members)
        logs = np.log([p for p, _ in ordered])
        index = np.array([i for _, i in ordered])
        wanted = np.log(pressure[rows])
        inside = between_levels(pressure[rows], [p for p, _ in ordered])  # np.interp takes the end's value beyond it
        if not inside.all():
            bad = float(pressure[rows][~inside][0])
            low, high = ordered[0][0], ordered[-1][0]
            raise ValueError(
                f"{name}: found an observation at {bad:g} Pa, expected pressures from {low:g} to {high:g} Pa"
            )
        position = np.interp(wanted, logs, np.arange(logs.size))
        below = np.minimum(position.astype(np.intp), max(logs.size - 2, 0))
        part = position - below
        entries.append((rows, index[below], 1.0 - part))
        if logs.size > 1:
            entries.append((rows, index[below + 1], part))
    row, column, value = (np.concatenate([e[k] for e in entries]) if entries else np.array([]) for k in range(3))
    weights = sp.csr_array((value, (row.astype(np.intp), column.astype(np.intp))), shape=(len(names), len(parsed)))
    weights.eliminate_zeros()
    return weights, np.isin(names, sorted(VECTOR_FIELDS))


def _kernel(offset: Array, interpolation: Interpolation) -> tuple[NDArray[np.intp], Array]:
    """Neighbour offsets (k,) and their weights (m, k) for fractional positions (m,) in [0, 1)."""
    t = offset[:, None]
    if interpolation == "bilinear":
        return np.array([0, 1]), np.concatenate([1 - t, t], axis=1)
    if interpolation != "bicubic":
        raise ValueError(f"interpolation: found {interpolation!r}, expected 'bilinear' or 'bicubic'")
    weights = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    return np.array([-1, 0, 1, 2]), 0.5 * np.concatenate(weights, axis=1)


def _horizontal(
    grid: LatLonGrid, latitude: Array, longitude: Array, interpolation: Interpolation, vector: bool
) -> sp.csr_array:
    """Weights on the grid cells, (m, lat * lon); ``vector`` turns the sign of values fetched across a pole."""
    nlat, nlon = grid.shape
    row, column = grid.fractional_index(np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64))
    base_row, base_column = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
    row_steps, row_weights = _kernel(row - base_row, interpolation)
    column_steps, column_weights = _kernel(column - base_column, interpolation)
    rows = base_row[:, None] + row_steps
    columns = base_column[:, None] + column_steps
    across = np.zeros(rows.shape, dtype=bool)
    if grid.is_global and nlon % 2 == 0:
        has_pole = abs(grid.latitude[0]) > 90 - 1e-3
        north, south = rows < 0, rows > nlat - 1
        rows = np.where(north, -rows - (0 if has_pole else 1), rows)
        rows = np.where(south, 2 * (nlat - 1) - rows + (0 if has_pole else 1), rows)
        across = north | south
    rows = rows.clip(0, nlat - 1)
    shift = np.where(across, nlon // 2, 0)
    all_columns = columns[:, None, :] + shift[:, :, None]
    all_columns = np.mod(all_columns, nlon) if grid.periodic else all_columns.clip(0, nlon - 1)
    weights = row_weights[:, :, None] * column_weights[:, None, :]
    if vector:
        weights = weights * np.where(across, -1.0, 1.0)[:, :, None]
    cells = rows[:, :, None] * nlon + all_columns
    point = np.broadcast_to(np.arange(len(row))[:, None, None], cells.shape)
    matrix = sp.csr_array((weights.ravel(), (point.ravel(), cells.ravel())), shape=(len(row), nlat * nlon))
    matrix.eliminate_zeros()
    return matrix


def _overlap(grid: LatLonGrid, target: LatLonGrid) -> sp.csr_array:
    """Conservative averaging: share of each target cell's area covered by each grid cell, (target cells, lat * lon)."""
    sine, sine_target = (np.sin(np.radians(g.row_edges))[::-1] for g in (grid, target))
    by_row = _interval_overlap(sine_target, sine)[::-1, ::-1]
    edges = [np.asarray(g.longitude)[0] + g.longitude_step * (np.arange(g.shape[1] + 1) - 0.5) for g in (grid, target)]
    turned = (_interval_overlap(edges[1], edges[0] + turn) for turn in (-360.0, 0.0, 360.0))
    by_column = sum(turned, start=np.zeros(1))
    for name, part in (("latitude", by_row), ("longitude", by_column)):
        if (part.sum(axis=1) <= 0).any():
            raise ValueError(f"{name}: the target grid has cells outside the model's domain")
    rows, columns = (part / part.sum(axis=1, keepdims=True) for part in (by_row, by_column))
    return sp.csr_array(sp.kron(sp.csr_array(rows), sp.csr_array(columns), format="csr"))


def _interval_overlap(target_edges: Array, edges: Array) -> Array:
    """Length shared by each target interval and each interval, both with ascending edges: (targets, intervals)."""
    upper = np.minimum(target_edges[1:, None], edges[None, 1:])
    lower = np.maximum(target_edges[:-1, None], edges[None, :-1])
    return np.asarray(np.maximum(upper - lower, 0.0))


def tangent_matrix(operator: Operator) -> sp.csr_array | None:
    """The matrix of a tangent that is the same everywhere, (m, size of the state); None where there is none."""
    if not isinstance(operator, Stack):
        return getattr(operator, "matrix", None)
    parts = [part for part in map(tangent_matrix, operator.operators) if part is not None]
    return sp.csr_array(sp.vstack(parts)) if len(parts) == len(operator.operators) else None
