"""The observation table: one row per scalar, pandas in memory, Parquet on disk.

========== =============== ==========================================================================
column     dtype           meaning
========== =============== ==========================================================================
time       datetime64[ns]  valid time, UTC
latitude   float64         degrees north
longitude  float64         degrees east in [0, 360)
pressure   float64         Pa; NaN for surface fields (t2m u10 v10 msl)
elevation  float64         station height above sea level, m; NaN unknown
variable   str             field identifier of :mod:`genda.variables` (z t u v q t2m u10 v10 msl)
observation float64        value in SI units
obs_error  float64         standard deviation of the observation error, same units; NaN not assigned yet
station    str             station identifier; where none is known, the position (:func:`identified`)
source     str             "igra", "bufr-temp", "simulated", …
quality    int16           a :class:`~genda.observations.flags.Flag`; 0 is pass
========== =============== ==========================================================================

After an analysis the float64 columns ``hx_b`` and ``hx_a`` hold the background and analysis at the observation, and
``hx_b_error`` the standard deviation of the background's error where it is known. Where a
source tells standard levels of a sounding from significant ones, the int8 column ``level_type`` holds a
:class:`~genda.observations.flags.LevelType`.
A row that passes is complete; a flagged row may lack its value, pressure or position. A sounding is what one station reports from
one source under one time (:func:`soundings`).

What was reported and gave no row is counted: readers leave ``attrs["not_stored"]``, a mapping from what and why to how many
(:func:`count_not_stored`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_string_dtype

from genda.atomic import replacing
from genda.observations.flags import Flag, LevelType
from genda.variables import FIELDS

DTYPES: dict[str, str] = {
    "time": "datetime64[ns]",
    "latitude": "float64",
    "longitude": "float64",
    "pressure": "float64",
    "elevation": "float64",
    "variable": "str",
    "observation": "float64",
    "obs_error": "float64",
    "station": "str",
    "source": "str",
    "quality": "int16",
}
"""Columns, in order, and their dtypes."""
COLUMNS = tuple(DTYPES)
NOT_STORED = "not_stored"
OPTIONAL_DTYPES = {"hx_b": "float64", "hx_b_error": "float64", "hx_a": "float64", "level_type": "int8"}

PRESSURE_ROUNDING = 1.0
"""Pa: reports give pressure to 1 or 10 Pa, and what is nearer than this to a level is at it."""
_KNOWN = tuple(f.id for f in FIELDS)
_ON_LEVELS = tuple(f.id for f in FIELDS if f.on_levels)


def empty() -> pd.DataFrame:
    """A table of no rows with every column."""
    return pd.DataFrame({name: pd.Series([], dtype=dtype) for name, dtype in DTYPES.items()})


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other; levels of a table that doesn't tell their type are ``UNKNOWN``."""
    filled = [table for table in tables if len(table)]
    if len(filled) < 2:
        whole = filled[0].reset_index(drop=True) if filled else empty()
    else:
        whole = pd.concat(filled, ignore_index=True)
        if "level_type" in whole:
            whole["level_type"] = whole["level_type"].fillna(LevelType.UNKNOWN).astype("int8")
    whole.attrs = {}
    for table in tables:
        count_not_stored(whole, table.attrs.get(NOT_STORED, {}))
    return whole


def count_not_stored(table: pd.DataFrame, counts: Mapping[str, int]) -> pd.DataFrame:
    """The table with counts of what was reported and gave no row, such as ``{"relative_humidity: needs a pressure": 2}``, added
    to those that it has. Like all ``attrs`` they go with a table through most of pandas, but not through ``pandas.concat``."""
    total = Counter(table.attrs.get(NOT_STORED, {}))
    total.update({reason: int(number) for reason, number in counts.items() if number})
    table.attrs[NOT_STORED] = dict(total)
    return table


def on_levels(table: pd.DataFrame) -> pd.Series:
    """Which rows are upper-air observations (boolean, aligned with the table)."""
    return table["variable"].isin(_ON_LEVELS)


def between_levels(pressure: NDArray[np.float64], levels: Sequence[float] | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pressures lie between the lowest and the highest of some levels (Pa), to the rounding of reports."""
    return np.asarray((pressure >= min(levels) - PRESSURE_ROUNDING) & (pressure <= max(levels) + PRESSURE_ROUNDING))


def identified(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the position as identifier of every row that has none.

    What has no name is told apart by where it is: places of different position are different stations.
    """
    unnamed = np.flatnonzero(table["station"].isna() | (table["station"].str.strip() == ""))
    if not unnamed.size:
        return table
    station = table["station"].to_numpy(dtype=object, copy=True)
    station[unnamed] = place_names(table["latitude"].to_numpy()[unnamed], table["longitude"].to_numpy()[unnamed])
    return table.assign(station=pd.Series(station, index=table.index, dtype="str"))


def place_names(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> list[str]:
    """What places without a name are called: degrees north and degrees east in [0, 360), to 10 m."""
    east = np.mod(np.round(longitude, 4), 360.0)
    return [f"{north:.4f},{degrees:.4f}" for north, degrees in zip(latitude, east, strict=True)]


def soundings(table: pd.DataFrame, *also: str) -> NDArray[np.intp]:
    """A number for each row's sounding, from 0 in order of appearance: rows of one station, time and source.

    Args:
        table: observations; rows without identifier count as those of a station at their position.
        also: further columns that rows must agree in, such as "variable".
    """
    keys = ["station", "time", "source", *also]
    numbers = identified(table).groupby(keys, sort=False, dropna=False).ngroup()
    return np.asarray(numbers.to_numpy(), dtype=np.intp)


def validate(table: pd.DataFrame, name: str = "observations", complete: bool = True) -> None:
    """Check a table against the schema.

    Args:
        table: what to check.
        name: what to call it in the error, for example its file.
        complete: whether every row that passes must hold a value; False for a table still to be simulated.

    Raises:
        ValueError: naming the table, the column, what was found and what was expected.
    """
    if table.empty:
        reasons = ", ".join(f"{reason} ({number})" for reason, number in table.attrs.get(NOT_STORED, {}).items())
        found = f"found no rows{f' (not stored: {reasons})' if reasons else ''}"
        raise ValueError(f"{name}: {found}, expected at least one observation")
    _check_columns(table, name)
    passed = table["quality"] == Flag.PASS
    if table["time"].isna().any():
        raise ValueError(f"{name}: column 'time': found a missing time, expected a time in every row")
    unknown = sorted(set(table["variable"].unique()) - set(_KNOWN))
    if unknown:
        raise ValueError(f"{name}: column 'variable': found {unknown[0]!r}, expected one of {', '.join(_KNOWN)}")
    for column, low, high in (("latitude", -90.0, 90.0), ("longitude", 0.0, 360.0)):
        values = table[column].to_numpy()
        expected = f"degrees in [{low:g}, {high:g}{']' if column == 'latitude' else ')'}"
        inside = (values >= low) & ((values <= high) if column == "latitude" else (values < high))
        _reject(table, name, column, ~inside & ~np.isnan(values), expected)
        _reject(table, name, column, np.isnan(values) & passed, expected)
    pressure = table["pressure"].to_numpy()
    _reject(
        table, name, "pressure", ~np.isnan(pressure) & ~((pressure > 0) & (pressure < np.inf)), "a pressure above 0 Pa"
    )
    _reject(
        table, name, "pressure", np.isnan(pressure) & on_levels(table) & passed, "a pressure on every upper-air row"
    )
    _reject(table, name, "elevation", np.isinf(table["elevation"]), "metres, or NaN where unknown")
    values = table["observation"].to_numpy()
    _reject(table, name, "observation", np.isinf(values), "a finite value")
    if complete:
        _reject(table, name, "observation", np.isnan(values) & passed, "a finite value in every row that passes")
    errors = table["obs_error"].to_numpy()
    _reject(
        table,
        name,
        "obs_error",
        ~np.isnan(errors) & ~((errors > 0) & (errors < np.inf)),
        "a standard deviation above 0",
    )


def _check_columns(table: pd.DataFrame, name: str) -> None:
    for column, dtype in (DTYPES | OPTIONAL_DTYPES).items():
        if column not in table.columns:
            if column in OPTIONAL_DTYPES:
                continue
            raise ValueError(f"{name}: column {column!r} is missing: found {', '.join(map(str, table.columns))}")
        if not isinstance(table[column], pd.Series):
            raise ValueError(f"{name}: column {column!r} occurs more than once")
        found = table[column].dtype
        if not (is_string_dtype(table[column]) if dtype == "str" else found == np.dtype(dtype)):
            raise ValueError(f"{name}: column {column!r}: found dtype {found}, expected {dtype}")
        if dtype == "str" and table[column].isna().any():
            raise ValueError(f"{name}: column {column!r}: found a missing value, expected text in every row")


def _reject(table: pd.DataFrame, name: str, column: str, wrong: Any, expected: str) -> None:
    rows = np.flatnonzero(np.asarray(wrong))
    if rows.size:
        found = table[column].iloc[rows[0]]
        raise ValueError(f"{name}: column {column!r}: found {found} in row {rows[0]}, expected {expected}")


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read and validate a Parquet observation table.

    Raises:
        ValueError: where the file is not Parquet, is damaged, or does not hold a valid table.
        FileNotFoundError: where there is no such file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as stream:
            read = pq.ParquetFile(stream).read()
            read.validate(full=True)  # text that is no UTF-8 would show much later
            table = read.to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        detail = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: found no readable Parquet table ({detail}), expected an observation table") from None
    for column, dtype in DTYPES.items():  # other writers store times in microseconds and text as object
        if column not in table.columns:
            continue
        if column == "time" and table[column].dtype.kind == "M" and getattr(table[column].dtype, "tz", None) is None:
            table[column] = table[column].astype("datetime64[ns]")
        elif dtype == "str" and is_string_dtype(table[column]) and not table[column].isna().any():
            table[column] = table[column].astype("str")
    validate(table, str(path))
    ordered = [*COLUMNS, *(c for c in table.columns if c not in DTYPES)]
    return identified(pd.DataFrame(table[ordered]).reset_index(drop=True))


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Validate and write a table to Parquet; the file appears whole or not at all.

    Raises:
        ValueError: as :func:`validate`.
    """
    validate(table, str(path))
    with replacing(path) as partial:
        table.to_parquet(partial, index=False)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts of rows, stations, soundings, variables and flags.

    Returns:
        ``{"rows": int, "stations": int, "soundings": int, "variables": {id: count}, "flags": {label: count}}``, and
        ``"levels": {label: count}`` of rows where the table tells standard from significant levels.
    """
    upper = table[on_levels(table)]
    variables = table["variable"].value_counts()
    flags, flag_counts = np.unique(table["quality"].to_numpy(), return_counts=True)
    known = {int(flag): flag.label for flag in Flag}
    levels = {} if "level_type" not in table else {k: int((table["level_type"] == k).sum()) for k in LevelType}
    return {
        "rows": len(table),
        "stations": int(identified(table)["station"].nunique()),
        "soundings": np.unique(soundings(upper)).size,
        "variables": {v: int(variables[v]) for v in _KNOWN if v in variables.index},
        "flags": {known.get(int(q), f"flag {q}"): int(n) for q, n in zip(flags, flag_counts, strict=True)},
        **({"levels": {k.label: n for k, n in levels.items() if n}} if levels else {}),
    }
