"""Observation tables, columns and coarse fields as sources: physical units become the normalised ones that methods see."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from genda.checkpoint import StateModel
from genda.linalg import BlockDiagonal, Covariance, Diagonal
from genda.observations import operators
from genda.observations.errors import sounding_blocks
from genda.observations.networks import columns_table
from genda.observations.quantities import Quantity
from genda.problem import Source
from genda.state import State


def point_operator(
    model: StateModel, table: pd.DataFrame, interpolation: operators.Interpolation = "bicubic"
) -> tuple[operators.LinearOperator, np.ndarray[Any, np.dtype[np.float64]]]:
    """H for the rows of an observation table.

    Returns:
        the normalised operator, and the scale s_o of each row in physical units.

    Raises:
        ValueError: for a variable the model lacks, a pressure outside its levels or a point outside its domain.
    """
    return operators.normalised(_point_matrix(model, table, interpolation), model.grid, model.normalisation.std)


def quantity_operator(
    model: StateModel, quantity: Quantity, sites: pd.DataFrame, time: np.datetime64
) -> operators.Nonlinear:
    """H of a quantity of columns, on states in normalised anomalies; values in the quantity's own unit, site by site.

    Args:
        sites: station, latitude, longitude, elevation.
        time: valid time, of whose season the anomalies are.

    Raises:
        ValueError: for a channel the model lacks or a site outside its domain.
    """
    table = columns_table(sites, quantity.channels, time)
    inner, scale = point_operator(model, table)
    mean, std = observe(model, climatology(model, time), table), torch.as_tensor(scale)

    def function(y: Tensor) -> Tensor:
        values = mean.to(y) + std.to(y) * y
        return quantity.function(values.view(len(y), len(sites), -1)).flatten(1)

    return operators.Nonlinear(function, inner)


def observe(where: StateModel | State, values: Tensor, table: pd.DataFrame) -> Tensor:
    """H of physical fields on the grid and channels of a model or state, at the rows of a table.

    Shapes (..., channel, lat, lon) to (..., rows); physical units. Raises as :func:`point_operator`.
    """
    operator = operators.LinearOperator(_point_matrix(where, table), (len(where.channels), *where.grid.shape))
    return operator(values.double().reshape(-1, *values.shape[-3:])).view(*values.shape[:-3], len(table))


def observe_std(where: StateModel | State, std: Tensor, table: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Standard deviations (channel, lat, lon) at the rows of a table: means, weighted by the size of the weights of H.

    H itself would turn the sign of winds from beyond a pole. Raises as :func:`point_operator`.
    """
    weights = abs(_point_matrix(where, table))
    values = weights @ std.double().flatten().numpy()
    return np.asarray(values / np.maximum(weights @ np.ones(weights.shape[1]), 1e-300))


def _point_matrix(
    where: StateModel | State, table: pd.DataFrame, interpolation: operators.Interpolation = "bicubic"
) -> sp.csr_array:
    return operators.points(
        where.grid,
        where.channels,
        table["variable"].tolist(),
        table["pressure"].to_numpy(dtype=np.float64),
        table["latitude"].to_numpy(dtype=np.float64),
        table["longitude"].to_numpy(dtype=np.float64),
        interpolation,
    )


def climatology(model: StateModel, time: np.datetime64) -> Tensor:
    """The seasonal mean state, physical units, shape (channel, lat, lon)."""
    mean = model.normalisation.mean_at(np.array([time]))[0]
    return mean.expand(len(model.channels), *model.grid.shape)


def point_source(
    model: StateModel,
    table: pd.DataFrame,
    time: np.datetime64,
    name: str = "observations",
    weight: float = 1.0,
    interpolation: operators.Interpolation = "bicubic",
    vertical_correlation: float | None = None,
) -> Source:
    """An observation table as a source in normalised anomalies.

    Args:
        table: rows to use; every ``obs_error`` must be given and every value finite.
        vertical_correlation: depth in ln p over which errors of a sounding's variable are correlated
            (:func:`genda.observations.errors.sounding_blocks`); independent where None.

    Raises:
        ValueError: for an empty table, a missing error, or as :func:`point_operator`.
    """
    if not len(table):
        raise ValueError(f"{name}: found no observations to use, expected at least one")
    errors = table["obs_error"].to_numpy(dtype=np.float64)
    if not (np.isfinite(errors) & (errors > 0)).all():
        row = table.index[~(np.isfinite(errors) & (errors > 0))][0]
        raise ValueError(f"{name}: row {row} has obs_error {table.loc[row, 'obs_error']}, expected a positive number")
    operator, scale = point_operator(model, table, interpolation)
    expected = observe(model, climatology(model, time), table).numpy()
    values = (table["observation"].to_numpy(dtype=np.float64) - expected) / scale
    deviation = torch.as_tensor(errors / scale, dtype=torch.float32)
    covariance: Covariance = Diagonal(deviation**2)
    if vertical_correlation is not None:
        blocks, correlations = sounding_blocks(table, vertical_correlation)
        covariance = BlockDiagonal.of(
            deviation, list(map(torch.as_tensor, blocks)), list(map(torch.as_tensor, correlations))
        )
    return Source(torch.as_tensor(values, dtype=torch.float32), operator, covariance, name, weight)


def add_representativeness(model: StateModel, table: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """The table with ``fraction`` of the climatological std added in variance to its errors: what the grid cannot follow."""
    scale = point_operator(model, table)[1]
    return table.assign(obs_error=np.hypot(table["obs_error"], fraction * scale))


def field_source(
    model: StateModel,
    coarse: State,
    error: float,
    name: str = "field",
    weight: float = 1.0,
    method: Literal["area", "bicubic", "bilinear"] = "area",
) -> Source:
    """A coarse field or an emulator forecast on its own grid as a source.

    Args:
        coarse: one time, shape (1, channel, lat, lon), physical units; any subset of the model's channels.
        error: standard deviation of its error, in units of each channel's climatological std.
        method: how the model state becomes the coarse one.

    Raises:
        ValueError: for a channel the model lacks, several times, or an error that is not positive.
    """
    if not error > 0:
        raise ValueError(f"{name}: found error {error:g}, expected a positive fraction of the climatological std")
    if coarse.values.ndim != 4 or len(coarse.times) != 1:
        raise ValueError(f"{name}: found {tuple(coarse.values.shape)}, expected one time without members")
    missing = [c for c in coarse.channels if c not in model.channels]
    if missing:
        raise ValueError(f"{name}: channels {', '.join(missing)} are not in the model: {', '.join(model.channels)}")
    index = [model.channels.index(c) for c in coarse.channels]
    matrix = operators.coarse(model.grid, coarse.channels, coarse.grid, method)
    inner = operators.LinearOperator(matrix, (len(index), *model.grid.shape))
    std = model.normalisation.std[index].view(1, -1, 1, 1)
    mean = inner(climatology(model, coarse.times[0])[index].double().unsqueeze(0)).view(
        1, len(index), *coarse.grid.shape
    )
    values = ((coarse.values.double() - mean) / std).flatten().float()
    operator = operators.LinearOperator(_on_channels(matrix, index, model), (len(model.channels), *model.grid.shape))
    return Source(values, operator, Diagonal(torch.full_like(values, error**2)), name, weight)


def coarse_field(state: State, factor: int) -> State:
    """Area means of a state over blocks of ``factor`` × ``factor`` cells."""
    target = state.grid.coarsened(factor)
    operator = operators.LinearOperator(
        operators.coarse(state.grid, state.channels, target), (len(state.channels), *state.grid.shape)
    )
    values = operator(state.values.double()).float().view(-1, len(state.channels), *target.shape)
    return State(values, state.channels, target, state.times)


def _on_channels(matrix: Any, index: list[int], model: StateModel) -> Any:
    """Columns of a matrix on some channels moved to their place among all channels."""
    if index == list(range(len(model.channels))):
        return matrix
    cells = model.grid.shape[0] * model.grid.shape[1]
    coordinates = matrix.tocoo()
    columns = np.asarray(index)[coordinates.col // cells] * cells + coordinates.col % cells
    return sp.csr_array(
        (coordinates.data, (coordinates.row, columns)), shape=(matrix.shape[0], len(model.channels) * cells)
    )
