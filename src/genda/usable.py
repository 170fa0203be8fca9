"""Which observations a model can use at a time: every check in order, and the mapping between climates where it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from genda.checkpoint import StateModel
from genda.observations.climate import ClimateMapping
from genda.observations.errors import Entry, assign_errors
from genda.observations.flags import Flag
from genda.observations.quality import (
    Check,
    check_background,
    check_bounds,
    check_domain,
    check_duplicates,
    check_missing,
    check_window,
    run_checks,
    set_flag,
)
from genda.observations.soundings import select_levels
from genda.sources import climatology, observe, point_operator
from genda.state import State
from genda.variables import channels as parse_channels

_REPORTED = {"observation": "reported", "obs_error": "reported_error"}
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
    checks: Iterable[Check] = (check_missing, check_bounds, check_duplicates),
    errors: Sequence[Entry] = (),
) -> tuple[pd.DataFrame, ClimateMapping | None]:
    """The whole table with flags set for this model and time, moved to the model's climate if asked for.

    Checks in order: those given, window, domain, variables and levels of the model, and last the departure from the model's
    climatology in units of its standard deviation, which catches gross errors only. Rows that a check has made passive stay so
    where the model can see them, in the climate of the others. A mapping that is not given is fitted on what has passed, once
    before and once after the last check.

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

    Returns:
        the table, and the mapping that was applied to it; where there is one, the columns ``reported`` and
        ``reported_error`` hold what :func:`as_reported` puts back.
    """
    given, map_climate = mapping, map_climate or mapping is not None
    table = assign_errors(table.reset_index(drop=True), errors)
    table = observable(model, table, time, window_hours, exact=map_climate, checks=checks)
    passing = (table["quality"] == Flag.PASS).to_numpy()
    if not passing.any():
        return table, None
    rows = table[passing]
    expected = observe(model, climatology(model, time), rows).numpy()
    _, spread = point_operator(model, rows)
    if map_climate and given is None:
        mapping = ClimateMapping.fit(rows, expected, amplitude)
    mapped = rows if mapping is None else mapping.to_model(rows, expected)
    checked = check_background(mapped, expected, spread, gross_factor)["quality"].to_numpy()
    if mapping is not None and given is None:
        good = checked == Flag.PASS
        mapping = ClimateMapping.fit(rows[good], expected[good], amplitude)
        mapped = mapping.to_model(rows, expected)
        checked = check_background(mapped, expected, spread, gross_factor)["quality"].to_numpy()
    table = table.copy()
    table.loc[passing, "quality"] = checked
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


def as_reported(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`usable_observations` with every observation and its error as they were before the mapping."""
    if not set(_REPORTED.values()) <= set(table.columns):
        return table
    restored = table.assign(**{column: table[kept] for column, kept in _REPORTED.items()})
    return restored.drop(columns=list(_REPORTED.values()))


def observable(
    where: StateModel | State,
    table: pd.DataFrame,
    time: np.datetime64,
    window_hours: float,
    exact: bool = False,
    checks: Iterable[Check] = (check_missing, check_bounds, check_duplicates),
) -> pd.DataFrame:
    """The whole table with flags for what a model or state cannot be seen through at a time.

    Checks in order: those given, window, domain, variables and levels. Arguments as of :func:`usable_observations`; ``exact``
    keeps only values reported at the levels themselves. Passive rows that can be seen stay passive, the others get the flag
    that says why not.
    """
    levels = sorted({c.pressure for c in parse_channels(where.channels) if c.pressure is not None})
    seen: list[Check] = [
        partial(check_window, time=time, half_width=pd.Timedelta(hours=window_hours)),
        partial(check_domain, grid=where.grid),
        partial(_check_variables, channels=where.channels),
        partial(select_levels, levels=levels, exact=exact),
    ]
    table = run_checks(table.reset_index(drop=True), checks)
    passive = (table["quality"] == Flag.PASSIVE).to_numpy()
    table = run_checks(table, seen)
    if passive.any():
        monitored = run_checks(table[passive].assign(quality=np.int16(Flag.PASS)), seen)["quality"]
        quality = table["quality"].to_numpy(copy=True)
        quality[passive] = monitored.where(monitored != Flag.PASS, Flag.PASSIVE)
        table = table.assign(quality=quality)
    return table


def _check_variables(table: pd.DataFrame, channels: Sequence[str]) -> pd.DataFrame:
    """``DOMAIN`` where no channel is of the variable."""
    known = {c.field.id for c in parse_channels(channels)}
    return set_flag(table, ~table["variable"].isin(known), Flag.DOMAIN)
