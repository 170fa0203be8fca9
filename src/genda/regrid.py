"""Fields from one grid to another.

==================== ============================================ ============================================================
method               keeps                                        for
==================== ============================================ ============================================================
``conservative``     the area mean, to round-off; bounds          coarser grids: the mean over each target cell
``bilinear``         bounds; what is linear in latitude           finer grids, regions
``spectral``         the spectrum below both grids' truncation    global grids of similar resolution, smooth variables
==================== ============================================ ============================================================

The first two are the sparse matrices of :mod:`genda.observations.operators`. Averages over cells and interpolation damp the
shortest waves of the coarser grid; only truncated spherical harmonics leave them as they are, at the price of ripples at sharp
edges: what cannot be negative is cut off at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from genda.grid import LatLonGrid
from genda.observations.operators import VECTOR_FIELDS, coarse
from genda.sphere import SphericalTransform, triangular_limit
from genda.state import State, nonnegative
from genda.variables import channels as parse_channels

RegridMethod = Literal["conservative", "bilinear", "spectral"]
Regridder = Callable[[Tensor, bool], Tensor]
"""Fields (..., lat, lon) on one grid, and whether they are a component of the wind, to another, in float64."""


def regridder(source: LatLonGrid, target: LatLonGrid, method: RegridMethod = "conservative") -> Regridder:
    """What takes fields from ``source`` to ``target``.

    Raises:
        ValueError: for an unknown method, a target that reaches outside the source, or a grid without spherical harmonics.
    """
    if method not in get_args(RegridMethod):
        raise ValueError(f"method: found {method!r}, expected one of {', '.join(get_args(RegridMethod))}")
    _check_inside(source, target)
    return _spectral(source, target) if method == "spectral" else _sparse(source, target, method)


def regrid(state: State, target: LatLonGrid, apply: Regridder) -> State:
    """A state on the grid that a regridder leads to."""
    parsed = parse_channels(state.channels)
    fields = [apply(state.values[..., i, :, :], c.field.id in VECTOR_FIELDS) for i, c in enumerate(parsed)]
    values = nonnegative(torch.stack(fields, dim=-3).float(), state.channels)
    return State(values, state.channels, target, state.times)


def _sparse(source: LatLonGrid, target: LatLonGrid, method: Literal["conservative", "bilinear"]) -> Regridder:
    kind: Literal["area", "bilinear"] = "area" if method == "conservative" else "bilinear"
    matrices = {vector: coarse(source, ["u10" if vector else "t2m"], target, kind) for vector in (False, True)}

    def apply(fields: Tensor, vector: bool) -> Tensor:
        flat = fields.reshape(-1, source.shape[0] * source.shape[1]).double().numpy()
        moved = np.ascontiguousarray((matrices[vector] @ flat.T).T)
        return torch.from_numpy(moved).view(*fields.shape[:-2], *target.shape)

    return apply


def _spectral(source: LatLonGrid, target: LatLonGrid) -> Regridder:
    limit = min(triangular_limit(source), triangular_limit(target))
    there, back = (SphericalTransform(grid, limit).double() for grid in (source, target))
    return lambda fields, vector: back.synthesis(there.analysis(fields.double()))


def _check_inside(source: LatLonGrid, target: LatLonGrid) -> None:
    latitude, longitude = (a.ravel() for a in np.meshgrid(target.latitude, target.longitude, indexing="ij"))
    outside = ~source.contains(latitude, longitude)
    if outside.any():
        i = int(outside.argmax())
        found = f"found target point {latitude[i]:g}°N {longitude[i]:g}°E outside the data"
        raise ValueError(f"grid: {found}, expected a target within them")
