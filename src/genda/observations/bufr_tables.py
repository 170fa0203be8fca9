"""Decoded BUFR arrays to observation tables, kind by kind.

Soundings: geopotential as reported, or from the height; specific humidity from the dew point; source "bufr-temp". Aircraft:
the pressure reported, else that of the standard atmosphere at the flight level, which is what an aircraft's altimeter
measures; "bufr-aircraft". Surface: temperature and wind of the first sensor reported and the pressure reduced to sea level;
"bufr-synop" on land and "bufr-ship" at sea. The dew point at the surface has no place in the table.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd

from genda.observations.bufr_decode import AIRCRAFT, LEVELS, SOUNDINGS
from genda.observations.conversions import standard_pressure
from genda.observations.files import OnLoss, refuse
from genda.observations.places import Places, observation_table
from genda.observations.table import empty, place_names
from genda.variables import STANDARD_GRAVITY

_SOURCES = {0: "bufr-synop", 1: "bufr-ship", SOUNDINGS: "bufr-temp", AIRCRAFT: "bufr-aircraft"}


def report_tables(data: dict[str, Any], path: str | os.PathLike[str], on_loss: OnLoss = None) -> list[pd.DataFrame]:
    """One table for every kind of report in the arrays of :func:`genda.observations.bufr_decode.decode`.

    Raises:
        ValueError: for a date or position that can't exist; with ``on_loss`` that report is left out.
    """
    date, time = _times(data)
    # BUFR's finest resolution is 1e-5 degrees; its scaling turns the pole into -90.00000000000001.
    latitude, longitude = np.round(data["latitude"], 5), np.round(data["longitude"], 5)
    good = np.ones(date.size, dtype=bool)
    # By the report's position: the levels of a sounding drift.
    names = np.where(data["station"] == "", place_names(latitude, longitude), data["station"])
    for name, wrong in (
        ("date", np.isnat(date)),
        ("latitude", np.abs(latitude) > 90),
        ("longitude", np.abs(longitude) > 360),
    ):
        for k in np.flatnonzero(wrong & good):
            found = "/".join(f"{data[part][k]:g}" for part in ("year", "month", "day", "hour", "minute"))
            found = found if name == "date" else f"{data[name][k]:g}"
            refuse(
                f"{path}: report of station {names[k]}: found {name} {found}, expected one that exists",
                on_loss,
            )
        good &= ~wrong
    report = np.repeat(np.arange(data["levels"].size), data["levels"])
    stations, station = np.unique(names, return_inverse=True)
    at_latitude = latitude[report] + np.nan_to_num(data["latitudeDisplacement"])
    at_longitude = longitude[report] + np.nan_to_num(data["longitudeDisplacement"])
    over_pole = np.abs(at_latitude) > 90
    at_longitude = np.where(over_pole, at_longitude + 180.0, at_longitude)
    at_latitude = np.where(over_pole, np.sign(at_latitude) * 180.0 - at_latitude, at_latitude)
    tables = []
    for category, source in _SOURCES.items():
        rows = np.flatnonzero(good[report] & (data["category"][report] == category))
        if not rows.size:
            continue
        levels = {name: data[name][rows] for name in LEVELS}
        places = Places(
            stations=stations.tolist(),
            station=station[report[rows]],
            time=time[report[rows]],
            latitude=np.clip(at_latitude[rows], -90.0, 90.0),
            longitude=at_longitude[rows],
            elevation=data["elevation"][report[rows]],
            pressure=_pressure(levels, category),
            date=date[report[rows]],
            level_type=np.nan_to_num(levels["significance"]).astype(np.int8) if category == SOUNDINGS else None,
        )
        tables.append(observation_table(places, _reported(levels, category), source))
    return tables or [empty()]


def _pressure(levels: dict[str, Any], category: int) -> Any:
    if category == AIRCRAFT:
        return np.where(np.isnan(levels["pressure"]), standard_pressure(levels["flightLevel"]), levels["pressure"])
    return levels["pressure"] if category == SOUNDINGS else None


def _reported(levels: dict[str, Any], category: int) -> dict[str, Any]:
    reported = {
        "temperature": levels["airTemperature"],
        "dewpoint": levels["dewpointTemperature"],
        "wind_direction": levels["windDirection"],
        "wind_speed": levels["windSpeed"],
        "pressure_at_sea_level": levels["pressureReducedToMeanSeaLevel"],
    }
    if category == SOUNDINGS:
        geopotential = levels["nonCoordinateGeopotential"]
        height = levels["nonCoordinateGeopotentialHeight"] * STANDARD_GRAVITY
        reported["geopotential"] = np.where(np.isnan(geopotential), height, geopotential)
    if category == AIRCRAFT:
        reported |= {"relative_humidity": levels["relativeHumidity"] / 100.0, "mixing_ratio": levels["mixingRatio"]}
    return reported


def _times(data: dict[str, Any]) -> tuple[Any, Any]:
    """Day (NaT where it can't exist) and time (NaT where the hour is missing), to the second."""
    year, month, day = (np.nan_to_num(data[k], nan=0.0).astype(np.int64) for k in ("year", "month", "day"))
    hour = data["hour"]
    minute, second = (np.nan_to_num(data[k], nan=0.0) for k in ("minute", "second"))
    start = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = start.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    valid = (year >= 1900) & (year < 2200) & (month >= 1) & (month <= 12) & (day >= 1)
    valid &= (date.astype("datetime64[M]") == start) & ~(hour > 24) & (minute < 60) & (second <= 60)
    date = np.where(valid, date, np.datetime64("NaT"))
    seconds = (3600 * np.nan_to_num(hour) + 60 * minute + second).astype(np.int64).astype("timedelta64[s]")
    time = np.where(np.isnan(hour), np.datetime64("NaT"), date.astype("datetime64[s]") + seconds)
    return date, time
