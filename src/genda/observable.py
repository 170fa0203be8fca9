"""What of a table a model or state can be seen through at a time, and what a background shows there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from genda.checkpoint import StateModel
from genda.observations.flags import Flag
from genda.observations.quality import BASIC_CHECKS, Check, check_domain, check_window, run_checks, set_flag
from genda.observations.soundings import select_levels
from genda.sources import observe, observe_std
from genda.state import State
from genda.variables import channels as parse_channels

_LONGEST_WINDOW = 1e6
"""Hours; beyond it times are no longer held in nanoseconds."""


def observable(
    where: StateModel | State,
    table: pd.DataFrame,
    time: np.datetime64,
    window_hours: float,
    exact: bool = False,
    checks: Iterable[Check] = BASIC_CHECKS,
) -> pd.DataFrame:
    """The whole table with flags for what a model or state cannot be seen through at a time.

    Checks in order: those given, window, domain, variables and levels. Passive rows that can be seen stay passive, the others
    get the flag that says why not.

    Args:
        where: with channels and a grid.
        table: observations, physical units.
        time: analysis time.
        window_hours: half-width of the window.
        exact: keep only values reported at the levels themselves.
        checks: run first.

    Raises:
        ValueError: for a window that is no length of time.
    """
    if not 0 <= window_hours <= _LONGEST_WINDOW:
        raise ValueError(f"window: found {window_hours:g} h, expected a half-width from 0 to {_LONGEST_WINDOW:g} h")
    levels: dict[str, list[float]] = {}
    for known in parse_channels(where.channels):
        if known.pressure is not None:
            levels.setdefault(known.field.id, []).append(known.pressure)
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


def seen_at(
    where: StateModel | State, table: pd.DataFrame, time: np.datetime64, window_hours: float, exact: bool = False
) -> NDArray[np.intp]:
    """Positions of the rows, passing or passive, that a model or state can be seen through at."""
    unflagged = np.flatnonzero(table["quality"].isin([Flag.PASS, Flag.PASSIVE]))
    quality = observable(where, table.iloc[unflagged], time, window_hours, exact, checks=())["quality"]
    wanted = [Flag.PASS, Flag.PASSIVE, *([] if exact else [Flag.THINNED])]
    return np.asarray(unflagged[quality.isin(wanted).to_numpy()])


def with_background(
    table: pd.DataFrame,
    background: State,
    time: np.datetime64,
    window_hours: float,
    error: Tensor | None = None,
    exact: bool = False,
) -> pd.DataFrame:
    """The table with ``hx_b`` and its standard deviation ``hx_b_error``, NaN where the background cannot be seen or it is unknown.

    Args:
        table: observations, of which those that pass or are passive are filled.
        background: of one time, (1, [member,] channel, lat, lon); ``hx_b`` is of the members' mean.
        time, window_hours, exact: as of :func:`observable`. Without ``exact`` a level that another one is nearer to than the
            background's is filled all the same.
        error: physical units, broadcast to (channel, lat, lon); the members' spread where None and there are several.
    """
    seen = seen_at(background, table, time, window_hours, exact)
    rows = table.iloc[seen]
    found, spread = np.full(len(table), np.nan), np.full(len(table), np.nan)
    if len(rows):
        values = background.values[0]
        members = observe(background, values if values.ndim == 4 else values.unsqueeze(0), rows).numpy()
        found[seen] = members.mean(axis=0)
        if error is not None:
            whole = error.double().expand(len(background.channels), *background.grid.shape)
            spread[seen] = observe_std(background, whole, rows)
        elif len(members) > 1:
            spread[seen] = members.std(axis=0, ddof=1)
    return table.assign(hx_b=found, hx_b_error=spread)
