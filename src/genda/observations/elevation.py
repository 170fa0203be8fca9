"""Stations held against the model's ground.

A grid box has one height. What a station 1,000 m above it reports of temperature and wind is air that the box does not have at
its surface: a thermometer is 6 K colder there for its height alone. Sea-level pressure is reduced to a common level and left
alone, and so are ascents, whose levels are pressures.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.grid import LatLonGrid
from genda.observations.flags import Flag
from genda.observations.quality import set_flag
from genda.variables import STANDARD_GRAVITY

Array = NDArray[np.float64]
_NEAR_GROUND = ("t2m", "u10", "v10")


def check_elevation(table: pd.DataFrame, orography: str, tolerance: float = 300.0) -> pd.DataFrame:
    """``DOMAIN`` on t2m, u10 and v10 of stations higher or lower than the ground there by more than a tolerance.

    Stations of unknown elevation are left alone.

    Args:
        table: observations.
        orography: a gridded file with ``geopotential_at_surface`` (m² s⁻²), of the model or on its grid: a finer one tells of
            valleys that the model does not have.
        tolerance: m, from what the map has at the station, interpolated between its points.

    Raises:
        ValueError: for a tolerance that is not positive, or a file without that map.
        FileNotFoundError: where there is no such file.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance: found {tolerance:g} m, expected a number above 0")
    grid, height = _ground(orography)
    rows = np.flatnonzero(
        table["variable"].isin(_NEAR_GROUND) & (table["quality"] == Flag.PASS) & table["elevation"].notna()
    )
    part = table.iloc[rows]
    inside = grid.contains(part["latitude"].to_numpy(), part["longitude"].to_numpy())
    rows, part = rows[inside], part[inside]
    if not rows.size:
        return table
    from genda.observations.operators import points  # torch here, xarray below: other checks do without

    place = (part["latitude"].to_numpy(), part["longitude"].to_numpy())
    ground = points(grid, ["t2m"], ["t2m"] * rows.size, np.full(rows.size, np.nan), *place, "bilinear") @ height.ravel()
    wrong = np.zeros(len(table), dtype=bool)
    wrong[rows] = np.abs(part["elevation"].to_numpy() - ground) > tolerance
    return set_flag(table, wrong, Flag.DOMAIN)


def _ground(path: str) -> tuple[LatLonGrid, Array]:
    """Height of the ground, m, on its grid."""
    from genda.files import open_gridded

    files = open_gridded(path)
    try:
        maps = files.static
        if "geopotential_at_surface" not in maps:
            raise ValueError(f"{path}: found no geopotential_at_surface, expected the model's orography")
        array = maps["geopotential_at_surface"].transpose("latitude", "longitude")
        grid, rows, columns = LatLonGrid.from_coordinates(array["latitude"].values, array["longitude"].values)
        return grid, array.values[rows][:, columns].astype(np.float64) / STANDARD_GRAVITY
    finally:
        files.close()
