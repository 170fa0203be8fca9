"""Default observation errors by variable and pressure.

Standard deviations of what a radiosonde report says against what a forecast model's grid box means: instrument plus
representativeness error. Temperature, wind and geopotential have the size that operational centres prescribe for
radiosondes (the ECMWF Integrated Forecasting System documentation, Part I; NCEP's prepobs error tables), rounded and
smoothed rather than transcribed from one cycle; geopotential is a height error times standard gravity. Specific humidity
is 15 % of the saturation value over water in the ICAO standard atmosphere, the relative-humidity error commonly given to
sondes, and constant above 200 hPa. Surface fields carry errors usual for land stations.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from genda.observations.table import on_levels
from genda.variables import STANDARD_GRAVITY, field

LEVELS_HPA = (1000, 850, 700, 500, 400, 300, 250, 200, 150, 100, 70, 50, 30, 20, 10)
_HEIGHT = (4.3, 4.4, 5.2, 8.4, 9.8, 10.7, 11.8, 13.2, 15.2, 18.1, 19.5, 22.5, 25.0, 32.0, 40.0)
_TEMPERATURE = (1.4, 1.25, 1.1, 0.95, 0.9, 1.0, 1.15, 1.2, 1.25, 1.3, 1.3, 1.4, 1.4, 1.4, 1.5)
_WIND = (1.8, 1.8, 1.9, 2.1, 2.5, 2.6, 2.5, 2.5, 2.4, 2.2, 2.1, 2.0, 2.1, 2.3, 2.7)
_HUMIDITY = (1.5e-3, 1.0e-3, 5.8e-4, 2.1e-4, 1.0e-4, 3.6e-5, 1.8e-5) + 8 * (1.4e-5,)

LEVEL_ERRORS: dict[str, tuple[float, ...]] = {
    "z": tuple(STANDARD_GRAVITY * h for h in _HEIGHT),
    "t": _TEMPERATURE,
    "u": _WIND,
    "v": _WIND,
    "q": _HUMIDITY,
}
"""Errors at :data:`LEVELS_HPA`: z m² s⁻², t K, u and v m s⁻¹, q kg kg⁻¹."""
SURFACE_ERRORS = {"t2m": 1.5, "u10": 2.0, "v10": 2.0, "msl": 100.0}


def default_error(variable: str, pressure: ArrayLike = np.nan) -> NDArray[np.float64]:
    """Error of a variable, linear in log pressure between the table's levels and constant beyond them.

    Args:
        variable: field identifier.
        pressure: Pa; ignored for surface fields. NaN gives NaN.

    Raises:
        ValueError: for an unknown variable.
    """
    p = np.asarray(pressure, dtype=np.float64)
    known = field(variable).id
    if known in SURFACE_ERRORS:
        return np.full(p.shape, SURFACE_ERRORS[known])
    table = np.log(100.0 * np.asarray(LEVELS_HPA[::-1], dtype=np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.interp(np.log(p), table, LEVEL_ERRORS[known][::-1]))


def assign_errors(table: pd.DataFrame) -> pd.DataFrame:
    """Fill every NaN ``obs_error`` with the default; errors already there stay."""
    errors = table["obs_error"].to_numpy(dtype=np.float64, copy=True)
    pressure = table["pressure"].to_numpy()
    variables = table["variable"].to_numpy()
    # A flagged upper-air row without pressure keeps NaN: nothing says how good it is.
    usable = ~(np.isnan(pressure) & on_levels(table).to_numpy())
    for variable in table["variable"].unique():
        rows = (variables == variable) & np.isnan(errors) & usable
        errors[rows] = default_error(variable, pressure[rows])
    return table.assign(obs_error=errors)
