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
edges: what cannot be negative is cut off at zero, or at the field's own smallest value where that is below.

Components of the wind are no smooth functions near a pole, where their axes turn with longitude. The harmonics are therefore those
of its three Cartesian components,

    w = u e_λ + v e_φ,    e_λ = (-sin λ, cos λ, 0),    e_φ = (-sin φ cos λ, -sin φ sin λ, cos φ),

and u = w · e_λ, v = w · e_φ on the target grid.
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
from genda.state import State
from genda.variables import channels as parse_channels

RegridMethod = Literal["conservative", "bilinear", "spectral"]
Regridder = Callable[[Tensor, bool], Tensor]
"""Fields (..., lat, lon) on one grid to another, in float64; with True a wind (..., 2, lat, lon), eastward and northward."""
_WINDS = {"u": "v", "u10": "v10"}


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
    """A state on the grid that a regridder leads to.

    Raises:
        ValueError: for one component of a wind without the other, where the method needs both.
    """
    parsed = parse_channels(state.channels)
    place = {(c.field.id, c.level_hpa): i for i, c in enumerate(parsed)}
    values = state.values.new_empty((*state.values.shape[:-2], *target.shape), dtype=torch.float32)
    for i, item in enumerate(parsed):
        if item.field.id in VECTOR_FIELDS:
            continue
        field = state.values[..., i, :, :]
        moved = apply(field, False)
        if item.field.nonnegative:
            moved = torch.maximum(moved, field.double().amin(dim=(-2, -1), keepdim=True).clamp(max=0.0))
        values[..., i, :, :] = moved
    for level in dict.fromkeys(c.level_hpa for c in parsed):
        for pair in _WINDS.items():
            index = [place[name, level] for name in pair if (name, level) in place]
            if index:
                values[..., index, :, :] = apply(state.values[..., index, :, :], True).float()
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
    turn = np.radians(target.longitude[0] - source.longitude[0])  # a transform counts longitude from the first column
    phase = torch.polar(torch.ones(limit, dtype=torch.float64), turn * torch.arange(limit, dtype=torch.float64))
    axes, target_axes = wind_axes(source), wind_axes(target)

    def scalar(fields: Tensor) -> Tensor:
        return back.synthesis(there.analysis(fields.double()) * phase)

    def apply(fields: Tensor, vector: bool) -> Tensor:
        if not vector:
            return scalar(fields)
        if fields.shape[-3] != 2:
            raise ValueError("spectral: found a wind with one component, expected both u and v, which mix near a pole")
        cartesian = scalar(torch.einsum("kxij,...kij->...xij", axes, fields.double()))
        return torch.einsum("kxij,...xij->...kij", target_axes, cartesian)

    return apply


def wind_axes(grid: LatLonGrid) -> Tensor:
    """Unit vectors eastward and northward at every point, (2, xyz, lat, lon)."""
    latitude, longitude = np.meshgrid(np.radians(grid.latitude), np.radians(grid.longitude), indexing="ij")
    eastward = [-np.sin(longitude), np.cos(longitude), np.zeros(grid.shape)]
    northward = [-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)]
    return torch.from_numpy(np.array([eastward, northward]))


def _check_inside(source: LatLonGrid, target: LatLonGrid) -> None:
    latitude, longitude = (a.ravel() for a in np.meshgrid(target.latitude, target.longitude, indexing="ij"))
    outside = ~source.contains(latitude, longitude)
    if outside.any():
        i = int(outside.argmax())
        found = f"found target point {latitude[i]:g}°N {longitude[i]:g}°E outside the data"
        raise ValueError(f"grid: {found}, expected a target within them")
