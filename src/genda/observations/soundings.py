"""Decoded ascents to table rows (by way of :mod:`genda.observations.places`), and the levels that a model can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.observations.flags import Flag
from genda.observations.places import QUANTITIES, Places, observation_table
from genda.observations.table import PRESSURE_ROUNDING, between_levels, on_levels, soundings

Array = NDArray[np.float64]


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
        relative_humidity: fraction of saturation over water; used where there is no dew point. mixing_ratio: kg/kg.
        wind_direction: degrees. wind_speed: m/s.
        latitude, longitude: of the balloon at the level, degrees; the ascent's where None.
        level_type: :class:`~genda.observations.flags.LevelType`.
    """

    ascent: NDArray[np.intp]
    pressure: Array
    geopotential: Array
    temperature: Array
    dewpoint: Array
    wind_direction: Array
    wind_speed: Array
    relative_humidity: Array | None = None
    mixing_ratio: Array | None = None
    latitude: Array | None = None
    longitude: Array | None = None
    level_type: NDArray[np.int8] | None = None


def soundings_table(ascents: Ascents, levels: Levels, source: str) -> pd.DataFrame:
    """The observation table of decoded ascents, level by level, variables in the order z t u v q."""
    stations, station = np.unique(ascents.station, return_inverse=True)
    at = levels.ascent
    places = Places(
        stations=stations.tolist(),
        station=station[at],
        time=ascents.time[at],
        latitude=ascents.latitude[at] if levels.latitude is None else levels.latitude,
        longitude=ascents.longitude[at] if levels.longitude is None else levels.longitude,
        elevation=ascents.elevation[at],
        pressure=levels.pressure,
        date=None if ascents.date is None else ascents.date[at],
        level_type=levels.level_type,
    )
    reported = {name: getattr(levels, name) for name in QUANTITIES if getattr(levels, name, None) is not None}
    return observation_table(places, reported, source)


def select_levels(
    table: pd.DataFrame, levels: Sequence[float] | Mapping[str, Sequence[float]], exact: bool = False
) -> pd.DataFrame:
    """Flag the upper-air rows that a model with the given pressure levels has no use for.

    Outside the model's pressure range (a station on the ground below the lowest level, the stratosphere above the
    highest) nothing can be interpolated: ``DOMAIN``. Inside it, each sounding and variable keeps for each model
    level the one row nearest in log pressure, so that a level reported exactly wins over its significant
    neighbours; the others are ``THINNED``. Surface fields and flagged rows are left alone.

    Args:
        table: observations.
        levels: model pressures, Pa; by variable where they differ, of which those left out are left alone.
        exact: keep only values reported at a model level, as a comparison level by level needs.

    Raises:
        ValueError: for no levels, or a level that is no positive pressure.
    """
    quality = table["quality"].to_numpy(copy=True)
    variable = table["variable"].to_numpy()
    upper = on_levels(table).to_numpy() & (quality == Flag.PASS)
    by_variable = levels if isinstance(levels, Mapping) else dict.fromkeys(np.unique(variable[upper]), levels)
    for name, own in by_variable.items():
        rows = np.flatnonzero(upper & (variable == name))
        quality[rows] = _selected(table.iloc[rows], own, exact)
    return table.assign(quality=quality)


def _selected(table: pd.DataFrame, levels: Sequence[float], exact: bool) -> NDArray[np.int16]:
    """Flags of passing rows of one variable."""
    model = np.sort(np.asarray(levels, dtype=np.float64))
    if model.size == 0 or not (np.isfinite(model) & (model > 0)).all():
        raise ValueError(f"levels: found {list(levels)}, expected at least one pressure above 0 Pa")
    pressure = table["pressure"].to_numpy()
    quality = np.full(len(table), Flag.DOMAIN, dtype=np.int16)
    rows = np.flatnonzero(between_levels(pressure, model))
    log_p, log_model = np.log(pressure[rows]), np.log(model)
    nearest = np.searchsorted(0.5 * (log_model[:-1] + log_model[1:]), log_p)
    sounding = soundings(table.iloc[rows])
    distance = np.abs(log_p - log_model[nearest])
    order = np.lexsort((rows, distance, nearest, sounding))
    first = np.ones(rows.size, dtype=bool)
    first[1:] = (np.diff(sounding[order]) != 0) | (np.diff(nearest[order]) != 0)
    if exact:
        first &= np.abs(pressure[rows] - model[nearest])[order] <= PRESSURE_ROUNDING
    quality[rows[order]] = np.where(first, Flag.PASS, Flag.THINNED)
    return quality
