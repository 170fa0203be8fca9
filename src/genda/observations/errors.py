r"""Observation errors by variable, pressure and source, and what they share within a sounding.

Standard deviations of what a radiosonde report says against what a forecast model's grid box means: instrument plus
representativeness error. Temperature, wind and geopotential have the size that operational centres prescribe for
radiosondes (the ECMWF Integrated Forecasting System documentation, Part I; NCEP's prepobs error tables), rounded and
smoothed rather than transcribed from one cycle; geopotential is a height error times standard gravity. Specific humidity
is 15 % of the saturation value over water in the ICAO standard atmosphere, the relative-humidity error commonly given to
sondes, and constant above 200 hPa. Surface fields carry errors usual for land stations. Aircraft and ships have entries of
their own (:data:`SOURCE_ERRORS`), after the same tables. A file may say otherwise:

    errors:
      - {variable: t, source: bufr-aircraft, pressure: [1000, 700, 200], error: [1.4, 1.0, 1.0]}   # hPa, linear in ln p
      - {variable: [u, v], error: 2.0}

The first entry that fits a row counts, then what the table holds, then the defaults. ``genda observations errors`` writes such a
file from departures.

A coarser grid cannot follow what an instrument sees. Where the kinetic energy spectrum falls as k^{-5/3} (Nastrom and Gage
1985, J. Atmos. Sci. 42, 950), variance below the grid spacing Δ grows as Δ^{2/3}:

    σ² = σ_o² (1 + s ((Δ / Δ_0)^{2/3} − 1)),   Δ > Δ_0

with s the share of representativeness in the variance at the spacing Δ_0 that the table stands for. Within a sounding errors
of a variable are correlated by exp(−|Δ ln p| / d): radiation, lag and what the grid lacks reach over some levels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError, field_validator, model_validator

from genda.documents import Strict, first_complaint, read_yaml
from genda.observations.conditions import Names, Positive, Variables
from genda.observations.table import on_levels, soundings
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
SOURCE_ERRORS: dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    source: {"t": ((1000.0, 850.0, 700.0), (1.4, 1.2, 1.0)), "u": ((1000.0,), (2.5,)), "v": ((1000.0,), (2.5,))}
    for source in ("bufr-aircraft", "madis-acars")
} | {
    "bufr-ship": {"msl": ((), (130.0,)), "t2m": ((), (1.8,)), "u10": ((), (2.4,)), "v10": ((), (2.4,))},
    "madis-mesonet": {"t2m": ((), (2.0,)), "u10": ((), (3.0,)), "v10": ((), (3.0,))},
}  # fmt: skip
"""Levels in hPa and errors by source and variable, where they differ from a sounding's or a land station's."""
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


class Entry(Strict):
    """Errors of some variables, from some sources, at pressures in hPa (falling or rising; none where it does not matter)."""

    variable: Variables
    source: Names = ()
    pressure: tuple[Positive, ...] = ()
    error: tuple[Positive, ...]

    @field_validator("pressure", "error", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return given if isinstance(given, (list, tuple)) else (given,)

    @model_validator(mode="after")
    def _paired(self) -> Entry:
        if len(self.error) != max(1, len(self.pressure)):
            raise ValueError(f"found {len(self.error)} errors at {len(self.pressure)} pressures, expected one each")
        return self


def read_errors(path: str | os.PathLike[str]) -> tuple[Entry, ...]:
    """Read a file of errors (see the module).

    Raises:
        ValueError: one line naming the file and the entry that is wrong.
        FileNotFoundError: where there is no such file.
    """
    given = read_yaml(path, "a list under 'errors'")
    if not isinstance(given, dict) or set(given) != {"errors"} or not isinstance(given["errors"], list):
        raise ValueError(f"{path}: found {given!r:.60}, expected a list under 'errors'")
    entries = []
    for number, entry in enumerate(given["errors"], start=1):
        try:
            entries.append(Entry.model_validate(entry))
        except ValidationError as error:
            raise ValueError(f"{path}: entry {number}: {first_complaint(error)}") from None
    return tuple(entries)


def assign_errors(table: pd.DataFrame, entries: Sequence[Entry] = ()) -> pd.DataFrame:
    """Give every row the error of the first entry that fits it, and those that still have none the default of their source.

    Without entries errors already there stay: a file's own, or those of an earlier call.
    """
    errors = table["obs_error"].to_numpy(dtype=np.float64, copy=True)
    pressure = table["pressure"].to_numpy()
    variables, sources = table["variable"].to_numpy(), table["source"].to_numpy()
    # A flagged upper-air row without pressure keeps NaN: nothing says how good it is.
    usable = ~(np.isnan(pressure) & on_levels(table).to_numpy())
    own = [
        Entry(variable=(variable,), source=(source,), pressure=levels, error=values)
        for source, by_variable in SOURCE_ERRORS.items()
        for variable, (levels, values) in by_variable.items()
    ]
    settled = np.zeros(len(table), dtype=bool)
    for entry, given in [(entry, True) for entry in entries] + [(entry, False) for entry in own]:
        free = ~settled if given else np.isnan(errors)
        rows = usable & free & np.isin(variables, entry.variable)
        if entry.source:
            rows &= np.isin(sources, entry.source)
        settled |= rows
        if rows.any():
            levels, values = (entry.pressure, entry.error) if entry.pressure else ((1000.0,), entry.error)
            order = np.argsort(levels)
            logs = np.log(100.0 * np.asarray(levels)[order])
            at = np.log(pressure[rows]) if entry.pressure else np.zeros(int(rows.sum()))
            errors[rows] = np.interp(at, logs, np.asarray(values)[order])
    for variable in table["variable"].unique():
        rows = (variables == variable) & np.isnan(errors) & usable
        errors[rows] = default_error(variable, pressure[rows])
    return table.assign(obs_error=errors)


def inflate_errors(
    table: pd.DataFrame, spacing_km: float, share: float = 0.5, reference_km: float = 100.0
) -> pd.DataFrame:
    """The table with errors that hold for a grid of ``spacing_km``; those of finer grids than the reference stay.

    Args:
        table: observations with ``obs_error``.
        spacing_km: Δ.
        share: s, of representativeness in the variance at Δ_0.
        reference_km: Δ_0.

    Raises:
        ValueError: for a spacing that is not positive, or a share outside [0, 1].
    """
    if not (spacing_km > 0 and reference_km > 0 and 0 <= share <= 1):
        found = f"{spacing_km:g} km, reference {reference_km:g} km, share {share:g}"
        raise ValueError(f"representativeness: found {found}, expected positive spacings and a share in [0, 1]")
    growth = max((spacing_km / reference_km) ** (2.0 / 3.0) - 1.0, 0.0)
    return table.assign(obs_error=table["obs_error"] * np.sqrt(1.0 + share * growth))


def sounding_blocks(
    table: pd.DataFrame, depth: float, alone: float = 0.1
) -> tuple[list[NDArray[np.intp]], list[NDArray[np.float64]]]:
    """Rows of each sounding and variable, and the correlation of their errors, for a block-diagonal R.

    Args:
        table: observations; surface rows are blocks of their own.
        depth: d, in ln p.
        alone: share of the variance that is independent from level to level.

    Returns:
        rows by position, (k,) each, and correlations, (k, k) each.

    Raises:
        ValueError: for a depth that is not positive, or a share outside (0, 1].
    """
    if not (depth > 0 and 0 < alone <= 1):
        raise ValueError(
            f"correlation: found depth {depth:g} and share {alone:g}, expected both above 0, the share up to 1"
        )
    log_p = np.log(table["pressure"].to_numpy())
    profile = soundings(table, "variable")
    rows = np.split(np.argsort(profile, kind="stable"), np.cumsum(np.bincount(profile))[:-1])
    correlations = []
    for part in rows:
        apart = np.abs(np.subtract.outer(log_p[part], log_p[part]))
        shared = (1.0 - alone) * np.exp(-np.nan_to_num(apart, nan=np.inf) / depth)
        np.fill_diagonal(shared, 1.0)
        correlations.append(shared)
    return rows, correlations
