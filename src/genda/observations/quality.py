"""Quality control: an ordered list of small filters that set flags.

A filter maps a table to a table of the same rows, below which it may add new ones (means of several). It never drops a
row and never overwrites an earlier flag, so the first filter that objects is the one on record and the order of the list is
the order of the blame:

    checks = [check_bounds, check_duplicates, partial(check_window, time=t, half_width=six_hours),
              partial(check_domain, grid=grid), partial(check_background, hx_b=hx_b, background_error=s_b)]
    table = run_checks(table, checks)

Filters look at rows that pass; rows already flagged are neither judged nor held against others. Lists in files are read by
:mod:`genda.observations.checks`; levels of a sounding are held against each other in
:mod:`genda.observations.vertical`, neighbours in :mod:`genda.observations.buddies`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from genda.grid import LatLonGrid
from genda.observations.conditions import duration, utc
from genda.observations.flags import Flag
from genda.variables import STANDARD_GRAVITY, field

Check = Callable[[pd.DataFrame], pd.DataFrame]

BOUNDS_HPA = (1100, 1000, 850, 700, 500, 300, 200, 100, 50, 10, 1)
_HEIGHT = (
    (-2000, 200), (-1300, 900), (500, 1950), (2150, 3500), (4300, 6200), (7500, 10100), (10000, 13000),
    (14000, 17300), (17800, 21500), (27500, 33500), (40000, 51000),
)  # fmt: skip
LEVEL_BOUNDS: dict[str, tuple[tuple[float, float], ...]] = {
    "z": tuple((STANDARD_GRAVITY * low, STANDARD_GRAVITY * high) for low, high in _HEIGHT),
    "t": (
        (195, 333), (195, 333), (205, 320), (208, 306), (208, 290), (188, 266), (178, 255), (165, 255), (165, 265),
        (170, 295), (185, 325),
    ),
    "q": (
        (0, 0.040), (0, 0.036), (0, 0.030), (0, 0.022), (0, 0.012), (0, 2.5e-3), (0, 1e-3), (0, 5e-4), (0, 5e-4),
        (0, 2e-3), (0, 1e-2),
    ),
}  # fmt: skip
"""Smallest and largest believable value at :data:`BOUNDS_HPA`, a few standard deviations beyond the records of the
global radiosonde network, linear in log pressure between; every value is held to the field's overall bounds as well.
Humidity is loose above 100 hPa, where a sonde's sensor sees little else than itself."""


def run_checks(table: pd.DataFrame, checks: Iterable[Check]) -> pd.DataFrame:
    """Apply filters in order.

    Raises:
        ValueError: if a filter changes the number of rows or an earlier flag.
    """
    for check in checks:
        before = table["quality"].to_numpy()
        table = check(table)
        after = table["quality"].to_numpy()
        name = getattr(check, "__name__", None) or getattr(getattr(check, "func", check), "__name__", repr(check))
        if after.size < before.size:
            raise ValueError(f"check {name}: found {after.size} rows, expected the {before.size} it was given")
        if (after[: before.size] != before)[before != Flag.PASS].any():
            raise ValueError(f"check {name}: found an earlier flag changed, expected flags on passing rows only")
    return table


def set_flag(table: pd.DataFrame, wrong: ArrayLike, flag: Flag) -> pd.DataFrame:
    """The table with ``flag`` on the rows that pass and are ``wrong`` (boolean, one per row)."""
    quality = table["quality"].to_numpy(copy=True)
    quality[np.asarray(wrong, dtype=bool) & (quality == Flag.PASS)] = flag
    return table.assign(quality=quality)


def check_missing(table: pd.DataFrame) -> pd.DataFrame:
    """``MISSING`` where a passing row has no value."""
    return set_flag(table, table["observation"].isna(), Flag.MISSING)


def check_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """``BOUNDS`` where a value is implausible for its variable, or at its pressure."""
    values, pressure = table["observation"].to_numpy(), table["pressure"].to_numpy()
    variables = table["variable"].to_numpy()
    wrong = np.zeros(len(table), dtype=bool)
    levels = np.log(100.0 * np.asarray(BOUNDS_HPA[::-1], dtype=np.float64))
    for variable in table["variable"].unique():
        rows = variables == variable
        low, high = field(variable).bounds
        wrong[rows] = (values[rows] < low) | (values[rows] > high)
        if variable in LEVEL_BOUNDS:
            with np.errstate(invalid="ignore", divide="ignore"):
                log_p = np.log(pressure[rows])
            bounds = np.asarray(LEVEL_BOUNDS[variable][::-1], dtype=np.float64)
            wrong[rows] |= values[rows] < np.interp(log_p, levels, bounds[:, 0])
            wrong[rows] |= values[rows] > np.interp(log_p, levels, bounds[:, 1])
    return set_flag(table, wrong, Flag.BOUNDS)


def check_duplicates(table: pd.DataFrame) -> pd.DataFrame:
    """``DUPLICATE`` on every passing row whose station, time, variable and pressure a passing row above has too."""
    passed = np.flatnonzero((table["quality"] == Flag.PASS).to_numpy())
    again = table[["station", "time", "variable", "pressure"]].iloc[passed].duplicated().to_numpy()
    wrong = np.zeros(len(table), dtype=bool)
    wrong[passed[again]] = True
    return set_flag(table, wrong, Flag.DUPLICATE)


def check_window(table: pd.DataFrame, time: Any, half_width: Any) -> pd.DataFrame:
    """``DOMAIN`` where the observation is further than ``half_width`` from the analysis ``time``.

    Args:
        table: observations.
        time: ISO 8601 or an object that is a time, UTC where it names no zone.
        half_width: such as "6h", or an object that is a duration.

    Raises:
        ValueError: for what is no time or no duration; a number is neither.
    """
    centre, width = utc(time, name="time"), duration(half_width, name="half_width")
    return set_flag(table, (table["time"] - centre).abs() > width, Flag.DOMAIN)


def check_domain(table: pd.DataFrame, grid: LatLonGrid) -> pd.DataFrame:
    """``DOMAIN`` where the observation is outside the grid's cells."""
    return set_flag(table, ~grid.contains(table["latitude"].to_numpy(), table["longitude"].to_numpy()), Flag.DOMAIN)


def check_background(
    table: pd.DataFrame, hx_b: ArrayLike, background_error: ArrayLike, factor: float = 4.0
) -> pd.DataFrame:
    """``BACKGROUND`` where |y − H x_b| > factor · √(σ_b² + σ_o²); also fills the column ``hx_b``.

    Args:
        table: observations with ``obs_error``.
        hx_b: background at the observations, physical units; where it isn't finite the flag is ``OPERATOR_FAILED``.
        background_error: σ_b at the observations, one value or one per row.
        factor: standard deviations allowed.

    Raises:
        ValueError: for the wrong number of values, a negative or undefined σ_b, a factor that isn't positive, or a
            passing row without ``obs_error``.
    """
    background = np.asarray(hx_b, dtype=np.float64)
    if background.shape != (len(table),):
        raise ValueError(f"hx_b: found shape {background.shape}, expected ({len(table)},)")
    sigma_b = _per_row(background_error, len(table), "background_error")
    if not factor > 0:
        raise ValueError(f"factor: found {factor}, expected a number above 0")
    passed = (table["quality"] == Flag.PASS).to_numpy()
    sigma_o = table["obs_error"].to_numpy()
    if np.isnan(sigma_o[passed]).any():
        raise ValueError("obs_error: found NaN on a passing row, expected assigned errors (assign_errors)")
    if not (sigma_b[passed] >= 0).all():
        raise ValueError("background_error: found a negative or undefined value, expected standard deviations")
    table = table.assign(hx_b=background)
    table = set_flag(table, ~np.isfinite(background), Flag.OPERATOR_FAILED)
    departure = np.abs(table["observation"].to_numpy() - background)
    with np.errstate(invalid="ignore"):
        return set_flag(table, departure > factor * np.hypot(sigma_b, sigma_o), Flag.BACKGROUND)


def _per_row(values: ArrayLike, rows: int, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (rows,)):
        raise ValueError(f"{name}: found shape {array.shape}, expected one value or ({rows},)")
    return np.broadcast_to(array, (rows,))
