"""Which observations a model can use at a time: every check in order, and the mapping between climates where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from genda import assimilation as library
from genda.checkpoint import StateModel
from genda.observations.climate import ClimateMapping
from genda.observations.errors import assign_errors
from genda.observations.flags import Flag
from genda.observations.quality import (
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
from genda.state import State
from genda.variables import channels as parse_channels


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
) -> tuple[pd.DataFrame, ClimateMapping | None]:
    """The whole table with flags set for this model and time, moved to the model's climate if asked for.

    Checks in order: missing, bounds, duplicates, window, domain, variables and levels of the model, and last the departure
    from the model's climatology in units of its standard deviation, which catches gross errors only. A mapping that is not
    given is fitted on what has passed, once before and once after that check.

    Args:
        model: the prior.
        table: observations, physical units.
        time: analysis time.
        window_hours: half-width of the window.
        map_climate: fit and apply a :class:`ClimateMapping`; keeps only values reported at the model's levels.
        amplitude: of the mapping that is fitted, see :class:`ClimateMapping`.
        mapping: apply this one instead of fitting one (for withheld observations).
        gross_factor: standard deviations allowed by the last check.

    Returns:
        the table, and the mapping that was applied to it.
    """
    given, map_climate = mapping, map_climate or mapping is not None
    table = assign_errors(observable(model, table, time, window_hours, exact=map_climate))
    passing = (table["quality"] == Flag.PASS).to_numpy()
    if not passing.any():
        return table, None
    rows = table[passing]
    expected = library.observe(model, library.climatology(model, time), rows).numpy()
    _, spread = library.point_operator(model, rows)
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
    for column in ("observation", "obs_error"):
        table.loc[passing, column] = mapped[column].to_numpy()
    return table, mapping


def observable(
    where: StateModel | State, table: pd.DataFrame, time: np.datetime64, window_hours: float, exact: bool = False
) -> pd.DataFrame:
    """The whole table with flags for what a model or state cannot be seen through at a time.

    Checks in order: missing, bounds, duplicates, window, domain, variables and levels. Arguments as of
    :func:`usable_observations`; ``exact`` keeps only values reported at the levels themselves.
    """
    checks: list[Callable[[pd.DataFrame], pd.DataFrame]] = [
        check_missing,
        check_bounds,
        check_duplicates,
        partial(check_window, time=time, half_width=pd.Timedelta(hours=window_hours)),
        partial(check_domain, grid=where.grid),
        partial(_check_variables, channels=where.channels),
    ]
    levels = sorted({c.pressure for c in parse_channels(where.channels) if c.pressure is not None})
    return select_levels(run_checks(table.reset_index(drop=True), checks), levels, exact=exact)


def _check_variables(table: pd.DataFrame, channels: Sequence[str]) -> pd.DataFrame:
    """``DOMAIN`` where no channel is of the variable."""
    known = {c.field.id for c in parse_channels(channels)}
    return set_flag(table, ~table["variable"].isin(known), Flag.DOMAIN)
