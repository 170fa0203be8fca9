"""Radiosonde stations: NCEI's station list, and the active stations shipped with the package."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.resources import files

import numpy as np
import pandas as pd

from genda.observations.files import open_binary, shown


def read_station_list(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read NCEI's ``igra2-station-list.txt``.

    Returns:
        station, latitude, longitude in [0, 360), elevation (m), name, first_year, last_year, soundings; position and
        elevation are NaN for mobile stations and wherever the list has its missing codes.

    Raises:
        ValueError: naming file and line where a line doesn't fit the format.
        FileNotFoundError: where there is no such file.
    """
    rows: list[tuple[str, float, float, float, str, int, int, int]] = []
    with open_binary(path) as stream:
        for number, raw in enumerate(stream, 1):
            line = raw[:200].decode("latin-1").rstrip("\r\n")
            try:
                latitude, longitude, elevation = float(line[12:20]), float(line[21:30]), float(line[31:37])
                years = int(line[72:76]), int(line[77:81]), int(line[82:88])
                if len(line) > 90 or not line[:11].isalnum() or not (abs(latitude) < 100 and abs(longitude) < 1000):
                    raise ValueError(line)
            except ValueError:
                raise ValueError(
                    f"{path}: line {number}: found {shown(raw[:60])}, expected an IGRA 2 station of 88 columns"
                ) from None
            fixed = abs(latitude) <= 90 and abs(longitude) <= 360
            position = (latitude, longitude % 360) if fixed else (np.nan, np.nan)
            rows.append((line[:11], *position, elevation if elevation > -900 else np.nan, line[38:71].strip(), *years))
    if not rows:
        raise ValueError(f"{path}: found no lines, expected an IGRA 2 station list")
    names = ["station", "latitude", "longitude", "elevation", "name", "first_year", "last_year", "soundings"]
    return pd.DataFrame(rows, columns=names)


@lru_cache(maxsize=1)
def shipped_stations() -> pd.DataFrame:
    """The active fixed IGRA stations shipped with the package: station, latitude, longitude, elevation, last_year, soundings.

    Chosen from NCEI's list (public domain) by rule: last year 2020 or later, at least 1,000 soundings, position and
    elevation known.
    """
    with files("genda").joinpath("assets/radiosonde_stations.csv").open("r", encoding="ascii") as stream:
        return pd.read_csv(stream, dtype={"station": "str"})
