"""Interpolation of a coarse field to the model grid: what super-resolution has to beat.

Bicubic (Keys) or bilinear in latitude and longitude, every channel by itself; no prior, no uncertainty.
"""

from __future__ import annotations

from typing import Literal

from genda.grid import LatLonGrid
from genda.observations.operators import LinearOperator, coarse
from genda.state import State


def interpolate(state: State, grid: LatLonGrid, method: Literal["bicubic", "bilinear"] = "bicubic") -> State:
    """``state`` on another grid, shape (time, [member,] channel, lat, lon)."""
    matrix = coarse(state.grid, state.channels, grid, method)
    operator = LinearOperator(matrix, (len(state.channels), *state.grid.shape))
    leading = state.values.shape[:-3]
    values = operator(state.values.reshape(-1, *state.values.shape[-3:]).double())
    return State(values.float().view(*leading, len(state.channels), *grid.shape), state.channels, grid, state.times)
