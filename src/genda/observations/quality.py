"""Quality control: an ordered list of small filters that set flags.

A filter maps a table to a table of the same rows, below which it may add new ones (means of several). It never drops a
row and never overwrites an earlier flag, so the first filter that objects is the one on record and the order of the list is
the order of the blame:

    checks = [check_bounds, check_duplicates, partial(check_window, time=t, half_width=six_hours),
              partial(check_domain, grid=grid), partial(check_background, hx_b=hx_b, background_error=s_b)]
    table = run_checks(table, checks)

Filters look at rows that pass; rows already flagged are neither judged nor held against others. They judge scalars; what is as
wrong as a value that they reject (the other component of a wind, the humidity of a temperature) follows it.

Lists in files are read by :mod:`genda.observations.checks`; levels of a sounding are held against each other in
:mod:`genda.observations.vertical`, neighbours in :mod:`genda.observations.buddies`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from genda.grid import LatLonGrid
from genda.observations.conditions import duration, utc
from genda.observations.flags import Flag
from genda.observations.table import identified, on_levels, soundings
from genda.variables import STANDARD_GRAVITY, field

_WMO_NUMBER = re.compile(r"^(?:[A-Z]{2}M000|0-2000[01]-0-)(?=\d{5}$)")
"""What IGRA and WIGOS put before the number of a station of the World Meteorological Organization."""

Check = Callable[[pd.DataFrame], pd.DataFrame]

BOUNDS_HPA = (1100, 1000, 850, 700, 500, 300, 200, 100, 50, 10, 1)
_HEIGHT = (
    (-2000, 200), (-1300, 900), (500, 1950), (2150, 3500), (4300, 6200), (7500, 10100), (10000, 13000),
    (14000, 17300), (17800, 21500), (27500, 33500), (40000, 51000),
)  # fmt: skip
_STRONGEST = (90, 90, 110, 110, 120, 150, 160, 140, 140, 170, 180)
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
    "u": tuple((-speed, speed) for speed in _STRONGEST),
    "v": tuple((-speed, speed) for speed in _STRONGEST),
}  # fmt: skip
"""Smallest and largest believable value at :data:`BOUNDS_HPA`, a few standard deviations beyond the records of the
global radiosonde network, linear in log pressure between; every value is held to the field's overall bounds as well.
Humidity is loose above 100 hPa, where a sonde's sensor sees little else than itself. Components of
the wind leave room above jets of 110 to 130 m/s, the polar night jet in the upper stratosphere and the walls of hurricanes' eyes,
where dropsondes had 107 m/s near 900 hPa; among 100,000 ordinary reports the largest were 41 m/s below 1000 hPa, 90 at 200 hPa
and 95 at 5 hPa."""


COMPANIONS = (("u", "v"), ("v", "u"), ("u10", "v10"), ("v10", "u10"), ("t", "q"))
"""A variable, and one that is not to be trusted without it at its place."""
_WRONG_VALUE = (Flag.BOUNDS, Flag.BACKGROUND, Flag.BUDDY, Flag.PROFILE)


def run_checks(table: pd.DataFrame, checks: Iterable[Check]) -> pd.DataFrame:
    """Apply filters in order, each followed by :func:`flag_companions`.

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
        table = flag_companions(table)
    return table


def flag_companions(table: pd.DataFrame) -> pd.DataFrame:
    """The flag of a wrong value on what was reported with it as well: :data:`COMPANIONS` at the same place and time.

    A wind has one direction and one speed: where one component is wrong, one of the two was, and the other component with it.
    Humidity is measured relative to saturation and reported as that, as a dew point or as a depression; specific humidity
    comes from it by way of the temperature. That of a wrong temperature is wrong by 6 % for every kelvin, mostly within all
    bounds. What was only not needed (``THINNED``, ``DUPLICATE``), not wanted (``DENIED``) or not seen is no companion's fault.
    A place that has another such value, which passes, is left alone.
    """
    quality, variable = table["quality"].to_numpy(copy=True), table["variable"].to_numpy()
    rejected = np.isin(quality, _WRONG_VALUE)
    if not rejected.any():
        return table
    involved = np.flatnonzero(np.isin(variable, [name for pair in COMPANIONS for name in pair]))
    place = np.zeros(len(table), dtype=np.intp)
    place[involved] = soundings(table.iloc[involved], "pressure")
    flags = np.zeros(place.max(initial=0) + 1, dtype=quality.dtype)
    for name, companion in COMPANIONS:
        own, passed = variable == name, table["quality"].to_numpy() == Flag.PASS
        flags[:] = Flag.PASS
        flags[place[own & rejected]] = table["quality"].to_numpy()[own & rejected]
        flags[place[own & passed]] = Flag.PASS
        rows = (variable == companion) & passed
        quality[rows] = flags[place[rows]]
    return table.assign(quality=quality)


def set_flag(table: pd.DataFrame, wrong: ArrayLike, flag: Flag) -> pd.DataFrame:
    """The table with ``flag`` on the rows that pass and are ``wrong`` (boolean, one per row)."""
    quality = table["quality"].to_numpy(copy=True)
    quality[np.asarray(wrong, dtype=bool) & (quality == Flag.PASS)] = flag
    return table.assign(quality=quality)


def check_missing(table: pd.DataFrame) -> pd.DataFrame:
    """``MISSING`` where a passing row has no value."""
    return set_flag(table, table["observation"].isna(), Flag.MISSING)


def bounds_at(variable: str, pressure: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest believable values of a variable at pressures in Pa (ignored at the surface), SI units."""
    low, high = (np.full(pressure.shape, limit) for limit in field(variable).bounds)
    if variable in LEVEL_BOUNDS:
        with np.errstate(invalid="ignore", divide="ignore"):
            log_p = np.log(pressure)
        levels = np.log(100.0 * np.asarray(BOUNDS_HPA[::-1], dtype=np.float64))
        bounds = np.asarray(LEVEL_BOUNDS[variable][::-1], dtype=np.float64)
        # fmax, fmin: without a pressure the field's overall bounds remain.
        low = np.fmax(low, np.interp(log_p, levels, bounds[:, 0]))
        high = np.fmin(high, np.interp(log_p, levels, bounds[:, 1]))
    return low, high


def check_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """``BOUNDS`` where a value is implausible for its variable, or at its pressure."""
    values, pressure = table["observation"].to_numpy(), table["pressure"].to_numpy()
    variables = table["variable"].to_numpy()
    wrong = np.zeros(len(table), dtype=bool)
    for variable in table["variable"].unique():
        rows = variables == variable
        low, high = bounds_at(variable, pressure[rows])
        wrong[rows] = (values[rows] < low) | (values[rows] > high)
    return set_flag(table, wrong, Flag.BOUNDS)


def check_duplicates(table: pd.DataFrame, hours: float = 1.5) -> pd.DataFrame:
    """``DUPLICATE`` on every passing row whose station, time, variable and pressure a passing row above has too.

    Stations are known by their WMO number where the identifier holds one (11035 is AUM00011035 and 0-20000-0-11035), and an ascent
    from such a station may come under another time from another source: one gives the hour that it stands for, the other
    that of the launch.

    Args:
        table: observations; a row without identifier is known by its position.
        hours: between the times of one ascent from two sources at most; within a source only equal times are one.

    Raises:
        ValueError: for a negative number of hours.
    """
    if not hours >= 0:
        raise ValueError(f"hours: found {hours}, expected a number of 0 or more")
    passed = np.flatnonzero((table["quality"] == Flag.PASS).to_numpy())
    part = identified(table.iloc[passed]).reset_index(drop=True)
    number = part["station"].map({name: _WMO_NUMBER.sub("", name) for name in part["station"].unique()}).astype("str")
    part = part.assign(station=number)
    part["time"] = _ascent_times(part, pd.Timedelta(hours=hours))
    again = part[["station", "time", "variable", "pressure"]].duplicated().to_numpy()
    wrong = np.zeros(len(table), dtype=bool)
    wrong[passed[again]] = True
    return set_flag(table, wrong, Flag.DUPLICATE)


def _ascent_times(part: pd.DataFrame, most: pd.Timedelta) -> pd.Series:
    """Times of rows; for an ascent that an earlier source in the table has too, the time that it has there."""
    keys = ["station", "source", "time"]
    ascents = part.loc[on_levels(part) & part["station"].str.fullmatch(r"\d{5}"), keys].drop_duplicates()
    known = pd.DataFrame({"station": ascents["station"][:0], "first": ascents["time"][:0]})
    matched = []
    for source in ascents["source"].unique():
        own = ascents[ascents["source"] == source].sort_values("time")
        near = pd.merge_asof(
            own, known.sort_values("first"), left_on="time", right_on="first", by="station",
            direction="nearest", tolerance=most,
        )  # fmt: skip
        near = near.assign(apart=(near["time"] - near["first"]).abs()).sort_values("apart", kind="stable")
        near.loc[near.duplicated(["station", "first"]), "first"] = pd.NaT  # of two ascents the nearer one is the same
        near["first"] = near["first"].fillna(near["time"])
        matched.append(near[[*keys, "first"]])
        known = pd.concat([known, near[["station", "first"]]]).drop_duplicates()
    if len(matched) < 2:
        return part["time"]
    first = part[keys].merge(pd.concat(matched), on=keys, how="left")["first"]
    return first.where(on_levels(part), part["time"]).fillna(part["time"])


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


def check_region(table: pd.DataFrame, north: float, west: float, south: float, east: float) -> pd.DataFrame:
    """``DOMAIN`` outside a rectangle in degrees, its edges included; one that crosses the prime meridian may start west of it.

    Raises:
        ValueError: where edges are in the wrong order.
    """
    if not (north > south and 0 < east - west <= 360):
        found = f"found north {north:g}, west {west:g}, south {south:g}, east {east:g}"
        raise ValueError(f"domain: {found}, expected north above south and west before east")
    inside = table["latitude"].between(south, north) & (np.mod(table["longitude"] - west, 360.0) <= east - west)
    return set_flag(table, ~inside, Flag.DOMAIN)


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
