"""Which observations a model can use at a time: every check in order, and the mapping between climates where it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.checkpoint import StateModel
from genda.observable import observable, seen_at, with_background
from genda.observations.checks import check_departures
from genda.observations.climate import ClimateMapping
from genda.observations.errors import Entry, assign_errors, inflate_errors
from genda.observations.flags import Flag
from genda.observations.quality import BASIC_CHECKS, Check, check_background, run_checks
from genda.observations.table import summary
from genda.sources import add_representativeness, climatology, observe, point_operator
from genda.state import State, nonnegative

Array = NDArray[np.float64]

_REPORTED = {"observation": "reported", "obs_error": "error_before_mapping"}
"""Columns that a mapping changes, and those that keep what they were."""


def usable_observations(
    model: StateModel,
    table: pd.DataFrame,
    time: np.datetime64,
    window_hours: float,
    *,
    map_climate: bool = False,
    amplitude: float = 1.0,
    mapping: ClimateMapping | None = None,
    gross_factor: float = 5.0,
    checks: Iterable[Check] = BASIC_CHECKS,
    errors: Sequence[Entry] = (),
    background: State | None = None,
    background_error: Tensor | None = None,
    representativeness: float | Literal["spacing"] | None = None,
) -> tuple[pd.DataFrame, ClimateMapping | None]:
    """The whole table with flags set for this model and time, moved to the model's climate if asked for.

    Checks in order: those given, window, domain, variables and levels of the model, and last the departure from the model's
    climatology in units of its standard deviation, which catches gross errors only. Rows that a check has made passive stay so
    where the model can see them, in the climate of the others. A mapping that is not given is fitted on what has passed, once
    before and once after the last check.

    A check of departures compares with ``background``, without one with the column ``hx_b`` of the table, and where there is
    none with the model's climatology, in the climate of the observations.

    Args:
        model: the prior.
        table: observations, physical units.
        time: analysis time.
        window_hours: half-width of the window.
        map_climate: fit and apply a :class:`ClimateMapping`; keeps only values reported at the model's levels.
        amplitude: of the mapping that is fitted, see :class:`ClimateMapping`.
        mapping: apply this one instead of fitting one (for withheld observations).
        gross_factor: standard deviations allowed by the last check.
        checks: run first, see :func:`genda.observations.read_checks`; they see what has an ``obs_error``.
        errors: instead of default errors, see :func:`genda.observations.errors.read_errors`.
        background: a forecast of the time, or an ensemble of them, (1, [member,] channel, lat, lon), physical units.
        background_error: its standard deviation, physical units, broadcast to (channel, lat, lon); an ensemble's spread by
            default.
        representativeness: of what the model's grid cannot follow, before any check: a fraction of the climatological standard
            deviation added in variance (:func:`genda.sources.add_representativeness`), or "spacing", errors that grow with
            the distance between its rows (:func:`genda.observations.errors.inflate_errors`).

    Returns:
        the table, and the mapping that was applied to it; where there is one, the columns ``reported`` and
        ``error_before_mapping`` hold what :func:`as_reported` puts back.

    Raises:
        ValueError: for a background, which is in the model's climate, with a mapping from another, or a negative fraction.
    """
    checks, map_climate = tuple(checks), map_climate or mapping is not None
    if background is not None and map_climate:
        raise ValueError("background: found one with a mapping of climates, expected one or the other")
    table = assign_errors(table.reset_index(drop=True), errors)
    if representativeness == "spacing":
        table = inflate_errors(table, model.grid.spacing / 1000.0)
    elif representativeness is not None:
        if not representativeness >= 0:
            raise ValueError(f"representativeness: found {representativeness}, expected a fraction of 0 or more")
        seen = seen_at(model, table, time, window_hours)
        fraction = representativeness * (amplitude if mapping is None else mapping.amplitude)
        errors_seen = add_representativeness(model, table.iloc[seen], fraction)["obs_error"]
        table = table.assign(obs_error=errors_seen.reindex(table.index).fillna(table["obs_error"]))
    if background is not None:
        table = with_background(table, background, time, window_hours, background_error)
    elif "hx_b" not in table and any(map(_compares, checks)):
        fitted = mapping if mapping is not None or not map_climate else amplitude
        table = _with_climatology(model, table, time, window_hours, fitted, gross_factor)
    table = observable(model, table, time, window_hours, exact=map_climate, checks=checks)
    passing = (table["quality"] == Flag.PASS).to_numpy()
    if not passing.any():
        return table, None
    rows = table[passing]
    expected = observe(model, climatology(model, time), rows).numpy()
    _, spread = point_operator(model, rows)
    if map_climate and mapping is None:
        mapping = _fitted(rows, expected, spread, amplitude, gross_factor)
    mapped = rows if mapping is None else mapping.to_model(rows, expected)
    table = table.copy()
    table.loc[passing, "quality"] = _without_gross(mapped, expected, spread, gross_factor)["quality"]
    if mapping is None:
        return table, None
    table = table.assign(**{kept: table[column] for column, kept in _REPORTED.items()})
    passive = (table["quality"] == Flag.PASSIVE).to_numpy()
    if passive.any():
        rows = table[passive]
        moved = mapping.to_model(rows, observe(model, climatology(model, time), rows).numpy())
        mapped = pd.concat([mapped, moved])
    for column in _REPORTED:
        table.loc[mapped.index, column] = mapped[column]
    return table, mapping


def used_of(table: pd.DataFrame) -> str:
    """How much of a checked table is used, and what becomes of the rest, in words."""
    flags = summary(table)["flags"]
    used = flags.pop(Flag.PASS.label, 0)
    rest = ", ".join(f"{name} {count:,}" for name, count in flags.items())
    return f"{used:,} of {len(table):,} observations used" + (f" ({rest})" if rest else "")


def _compares(check: Check) -> bool:
    """Whether a check, with settings or as it is, is that of departures."""
    inner = inspect.unwrap(check)
    return getattr(inner, "func", inner) is check_departures


def _fitted(
    rows: pd.DataFrame, expected: Array, spread: Array, amplitude: float, gross_factor: float
) -> ClimateMapping:
    """A mapping of rows that pass, fitted again to those of them that its first fit shows to be without gross errors."""
    first = ClimateMapping.fit(rows, expected, amplitude).to_model(rows, expected)
    good = (_without_gross(first, expected, spread, gross_factor)["quality"] == Flag.PASS).to_numpy()
    return ClimateMapping.fit(rows[good], expected[good], amplitude)


def _without_gross(rows: pd.DataFrame, expected: Array, spread: Array, factor: float) -> pd.DataFrame:
    """Rows with a flag on those too far from the climatology, and on what was reported with them."""
    return run_checks(rows, [partial(check_background, hx_b=expected, background_error=spread, factor=factor)])


def _with_climatology(
    model: StateModel,
    table: pd.DataFrame,
    time: np.datetime64,
    window_hours: float,
    mapping: ClimateMapping | float | None,
    gross_factor: float,
) -> pd.DataFrame:
    """The table with the model's climatology for ``hx_b``, in the climate of the observations.

    ``mapping`` is the one between the two, the amplitude of one to be fitted, or None where they are the same.
    """
    mean, std = climatology(model, time), model.normalisation.std.view(-1, 1, 1)
    state = State(mean.unsqueeze(0), model.channels, model.grid, np.array([time]))
    table = with_background(table, state, time, window_hours, std, exact=mapping is not None)
    if mapping is None:
        return table
    if not isinstance(mapping, ClimateMapping):
        rows = table[table["hx_b"].notna() & (table["quality"] == Flag.PASS)]
        rows = run_checks(rows, BASIC_CHECKS)
        rows = rows[rows["quality"] == Flag.PASS]
        if rows.empty:
            return table
        mapping = _fitted(rows, rows["hx_b"].to_numpy(), rows["hx_b_error"].to_numpy(), mapping, gross_factor)
    return table.assign(
        hx_b=mapping.to_earth(table, table["hx_b"].to_numpy(), table["hx_b"].to_numpy()),
        hx_b_error=mapping.amplitude * table["hx_b_error"],
    )


def as_reported(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`usable_observations` with every observation and its error as they were before the mapping."""
    if not set(_REPORTED.values()) <= set(table.columns):
        return table
    restored = table.assign(**{column: table[kept] for column, kept in _REPORTED.items()})
    return restored.drop(columns=list(_REPORTED.values()))


def in_observed_climate(model: StateModel, state: State, mapping: ClimateMapping) -> State:
    """States of one time on the model's channels, moved from its climate to that of the observations the mapping was fitted to."""
    shift = torch.as_tensor(mapping.on_channels(state.channels, state.grid.latitude)).float().unsqueeze(-1)
    mean = climatology(model, state.times[0])
    values = nonnegative(mean + mapping.amplitude * (state.values - mean) + shift, state.channels)
    return State(values, state.channels, state.grid, state.times)
