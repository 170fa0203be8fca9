"""Decoded ascents to table rows, and the levels of an ascent that a model can use.

Every upper-air reader ends here: it hands over arrays of levels in SI units and gets one row per reported
scalar. A value that was reported but can't be used keeps its row and says why in ``quality``:

- on a level without pressure, or an ascent without time or position: ``MISSING``;
- not convertible (wind direction 925, pressure ≤ 0, vapour pressure above the pressure): NaN, ``BOUNDS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.observations.conversions import saturation_vapour_pressure, specific_humidity, wind_components
from genda.observations.flags import Flag
from genda.observations.table import DTYPES, on_levels

Array = NDArray[np.float64]
VARIABLES = ("z", "t", "u", "v", "q")
_ROUNDING = 1.0  # Pa; reports give pressure to 1 or 10 Pa


@dataclass(frozen=True)
class Ascents:
    """One entry per ascent.

    Attributes:
        station: identifiers.
        time: datetime64; NaT where unknown, with the day in ``date``.
        latitude, longitude: degrees; NaN where unknown.
        elevation: m; NaN where unknown.
        date: the day, where the time of day is unknown.
    """

    station: NDArray[np.str_]
    time: NDArray[np.datetime64]
    latitude: Array
    longitude: Array
    elevation: Array
    date: NDArray[np.datetime64] | None = None


@dataclass(frozen=True)
class Levels:
    """One entry per level; NaN means not reported.

    Attributes:
        ascent: index into the ascents.
        pressure: Pa.
        geopotential: m² s⁻².
        temperature, dewpoint: K.
        relative_humidity: fraction of saturation over water; used where there is no dew point.
        wind_direction: degrees. wind_speed: m/s.
        latitude, longitude: of the balloon at the level, degrees; the ascent's where None.
    """

    ascent: NDArray[np.intp]
    pressure: Array
    geopotential: Array
    temperature: Array
    dewpoint: Array
    relative_humidity: Array
    wind_direction: Array
    wind_speed: Array
    latitude: Array | None = None
    longitude: Array | None = None


def soundings_table(ascents: Ascents, levels: Levels, source: str) -> pd.DataFrame:
    """The observation table of decoded ascents, level by level, variables in the order z t u v q."""
    usable_pressure = np.where(levels.pressure > 0, levels.pressure, np.nan)
    values, reported = _values(levels, usable_pressure)
    level, variable = np.nonzero(reported)
    ascent = levels.ascent[level]

    time = ascents.time.astype("datetime64[ns]")
    untimed = np.isnat(time)
    if ascents.date is not None:
        time = np.where(untimed, ascents.date.astype("datetime64[ns]"), time)
    latitude = ascents.latitude[ascent] if levels.latitude is None else levels.latitude[level]
    longitude = ascents.longitude[ascent] if levels.longitude is None else levels.longitude[level]
    longitude = np.mod(longitude, 360.0)
    longitude[longitude >= 360.0] = 0.0  # the modulus of −1e-17 rounds to 360

    observation = values[level, variable]
    pressure = usable_pressure[level]
    quality = np.zeros(level.size, dtype=np.int16)
    quality[~np.isfinite(observation) | ~np.isnan(levels.pressure[level]) & np.isnan(pressure)] = Flag.BOUNDS
    quality[np.isnan(levels.pressure[level]) | untimed[ascent] | np.isnan(latitude) | np.isnan(longitude)] = (
        Flag.MISSING
    )

    stations, station = np.unique(ascents.station, return_inverse=True)
    columns = {
        "time": time[ascent],
        "latitude": latitude,
        "longitude": longitude,
        "pressure": pressure,
        "elevation": ascents.elevation[ascent],
        "variable": _names(VARIABLES, variable),
        "observation": np.where(np.isfinite(observation), observation, np.nan),
        "obs_error": np.full(level.size, np.nan),
        "station": _names(stations.tolist(), station[ascent]),
        "source": _names((source,), np.zeros(level.size, dtype=np.intp)),
        "quality": quality,
    }
    return pd.DataFrame({name: columns[name] for name in DTYPES}, copy=False)


def _names(names: Sequence[str], codes: NDArray[np.intp]) -> pd.Index:
    """Text of integer codes; taking from the few distinct strings is ten times faster than building them one by one."""
    return pd.Index(list(names), dtype="str").take(codes)


def _values(levels: Levels, pressure: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Values and whether they were reported, both (level, variable)."""
    u, v = wind_components(levels.wind_direction, levels.wind_speed)
    wind = ~np.isnan(levels.wind_speed) & (~np.isnan(levels.wind_direction) | (levels.wind_speed == 0))
    by_dewpoint = ~np.isnan(levels.dewpoint)
    by_humidity = ~np.isnan(levels.relative_humidity) & ~np.isnan(levels.temperature)
    humidity = by_dewpoint | by_humidity
    vapour_pressure = np.full(u.shape, np.nan)
    vapour_pressure[humidity] = np.where(
        by_dewpoint[humidity],
        saturation_vapour_pressure(levels.dewpoint[humidity]),
        levels.relative_humidity[humidity] * saturation_vapour_pressure(levels.temperature[humidity]),
    )
    q = specific_humidity(vapour_pressure, pressure)
    values = np.stack([levels.geopotential, levels.temperature, u, v, q], axis=1)
    reported = np.stack(
        [~np.isnan(levels.geopotential), ~np.isnan(levels.temperature), wind, wind, humidity],
        axis=1,
    )
    return values, reported


def select_levels(table: pd.DataFrame, levels: Sequence[float], exact: bool = False) -> pd.DataFrame:
    """Flag the upper-air rows that a model with the given pressure levels has no use for.

    Outside the model's pressure range (a station on the ground below the lowest level, the stratosphere above the
    highest) nothing can be interpolated: ``DOMAIN``. Inside it, each sounding and variable keeps for each model
    level the one row nearest in log pressure, so that a level reported exactly wins over its significant
    neighbours; the others are ``THINNED``. Surface fields and flagged rows are left alone.

    Args:
        table: observations.
        levels: model pressures, Pa.
        exact: keep only values reported at a model level, as a comparison level by level needs.

    Raises:
        ValueError: for no levels, or a level that is no positive pressure.
    """
    model = np.sort(np.asarray(levels, dtype=np.float64))
    if model.size == 0 or not (np.isfinite(model) & (model > 0)).all():
        raise ValueError(f"levels: found {list(levels)}, expected at least one pressure above 0 Pa")
    quality = table["quality"].to_numpy(copy=True)
    pressure = table["pressure"].to_numpy()
    upper = on_levels(table).to_numpy() & (quality == Flag.PASS)
    inside = (pressure >= model[0] - _ROUNDING) & (pressure <= model[-1] + _ROUNDING)
    quality[upper & ~inside] = Flag.DOMAIN

    rows = np.flatnonzero(upper & inside)
    log_p, log_model = np.log(pressure[rows]), np.log(model)
    nearest = np.searchsorted(0.5 * (log_model[:-1] + log_model[1:]), log_p)
    sounding = (
        table[["station", "time", "source", "variable"]]
        .iloc[rows]
        .groupby(["station", "time", "source", "variable"], sort=False)
        .ngroup()
        .to_numpy()
    )
    distance = np.abs(log_p - log_model[nearest])
    order = np.lexsort((rows, distance, nearest, sounding))
    first = np.ones(rows.size, dtype=bool)
    first[1:] = (np.diff(sounding[order]) != 0) | (np.diff(nearest[order]) != 0)
    if exact:
        first &= np.abs(pressure[rows] - model[nearest])[order] <= _ROUNDING
    quality[rows[order[~first]]] = Flag.THINNED
    return table.assign(quality=quality)
