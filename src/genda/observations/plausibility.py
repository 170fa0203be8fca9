"""Whether the values of a file can be in the units that it is said to be in: judged where files come in, by what stands together.

A pressure tells nothing by itself: 850 may be hectopascals of the lower troposphere or pascals of the stratopause. The heights
or, where there are none, the temperatures beside it do: taken for the other, heights are 32 km apart.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.observations.flags import Flag
from genda.observations.quality import bounds_at
from genda.variables import STANDARD_GRAVITY, field

_HIGHEST_IN_HECTOPASCAL = 1100.0
_HIGHEST = 1.1e5
_SCALE_HEIGHT = 7000.0
_STANDARD_HPA = (0.04, 0.67, 1.11, 8.68, 54.75, 226.3, 1013.25)
_STANDARD_TEMPERATURE = (214.65, 270.65, 270.65, 228.65, 216.65, 216.65, 288.15)
"""Corners of the US Standard Atmosphere 1976, K."""


def refuse_wrong_units(table: pd.DataFrame, name: str) -> None:
    """Refuse a table most of whose values of a variable can't exist, at their pressures: wrong units, or missing values that
    nobody declared.

    Args:
        table: observations.
        name: what to call it in the error.

    Raises:
        ValueError: saying of which variable, or that the pressures are wrong.
    """
    refuse_hectopascals(table, name)
    passing = table.loc[table["quality"] == Flag.PASS, ["variable", "pressure", "observation"]]
    middle = float(passing["pressure"].median())
    if middle > _HIGHEST:
        raise ValueError(f"{name}: found a median pressure of {middle:g} Pa, expected up to {_HIGHEST:g}: wrong units?")
    for name_of, rows in passing.groupby("variable"):
        known = field(str(name_of))
        values, pressure = rows["observation"].to_numpy(), rows["pressure"].to_numpy()
        low, high = bounds_at(known.id, pressure)
        wrong = (values < low) | (values > high)
        if 2 * np.count_nonzero(wrong) > wrong.size:
            kth = np.flatnonzero(wrong)[np.argsort(values[wrong])[np.count_nonzero(wrong) // 2]]
            at = f" at {pressure[kth] / 100:g} hPa" if known.on_levels else ""
            found = (
                f"found {values[kth]:g} {known.units} for {known.name}{at} and more than half of its values as wrong"
            )
            raise ValueError(
                f"{name}: {found}, expected {low[kth]:g} to {high[kth]:g}: wrong units or missing values in the map?"
            )


def refuse_hectopascals(table: pd.DataFrame, name: str) -> None:
    """Refuse a table of pressures in hPa, told by heights or else temperatures that belong to pressures 100 times as high.

    Args:
        table: observations; one without passing heights and temperatures is left alone.
        name: what to call it in the error.

    Raises:
        ValueError: naming the highest pressure.
    """
    highest = table["pressure"].max()
    if not 0 < highest <= _HIGHEST_IN_HECTOPASCAL:
        return
    for variable, too_low in (("z", _heights_too_low), ("t", _temperatures_too_high)):
        rows = table[(table["variable"] == variable) & (table["quality"] == Flag.PASS)]
        value, pressure = rows["observation"].to_numpy(), rows["pressure"].to_numpy()
        known = np.isfinite(value) & (pressure > 0)
        if known.any():
            if np.median(too_low(value[known], pressure[known])) > 0:
                raise ValueError(
                    f"{name}: column 'pressure': found no value above {highest:g}, expected Pa (these look like hPa)"
                )
            return


def _heights_too_low(geopotential: NDArray[np.float64], pressure: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far heights are below the middle, in ln p, between those at the pressure and at 100 times the pressure."""
    by_height = np.log(101325.0) - geopotential / (STANDARD_GRAVITY * _SCALE_HEIGHT)
    return np.asarray(by_height - np.log(10.0 * pressure))


def _temperatures_too_high(temperature: NDArray[np.float64], pressure: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much nearer temperatures are to the standard atmosphere's at 100 times the pressure, K."""
    corners = np.log(100.0 * np.asarray(_STANDARD_HPA))
    here, below = (np.interp(np.log(factor * pressure), corners, _STANDARD_TEMPERATURE) for factor in (1.0, 100.0))
    return np.asarray(np.abs(temperature - here) - np.abs(temperature - below))
