"""Any table of point observations, CSV, Parquet or netCDF, by a map of its columns (:mod:`genda.observations.column_map`).

CSV and Parquet are read in blocks, each to an observation table, so that memory follows the block. A netCDF file holds one
record per point along one dimension, or stations times times, and says its units itself. What can't be a number, a time or a
position is an error that names row and column; with ``on_loss`` the row is left out.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.observations.cells import Cells, times
from genda.observations.column_map import BLANKS, ColumnMap, Long, Reported, shipped_maps
from genda.observations.files import DamagedArchive, OnLoss, open_binary, refuse
from genda.observations.places import Places, observation_table
from genda.observations.plausibility import refuse_wrong_units
from genda.observations.table import count_not_stored, joined
from genda.variables import STANDARD_GRAVITY

Array = NDArray[np.float64]
_BLOCK = 100_000
_EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "None")
_EMPTY_CELL = "empty or declared missing"
_WHOLE = "expected a whole table of observations"
_MORE = "cells beyond the last name"
_LARGEST = 50_000_000
"""Places at most of a netCDF file, which is read at once."""


def read_columns(path: str | os.PathLike[str], columns: ColumnMap, on_loss: OnLoss = None) -> pd.DataFrame:
    """Read a CSV (plain, gzip, zip), Parquet or netCDF (plain, gzip) file to an observation table.

    Args:
        path: the file; its kind is told by its content.
        columns: what its columns mean.
        on_loss: takes one line for every row that can't be read, which is left out then.

    Raises:
        ValueError: naming the file, column and row, what was found and what was expected.
        FileNotFoundError: where there is no such file.
    """
    with open_binary(path, on_loss) as stream:
        start = stream.peek(4)[:4]
        if start == b"PAR1":
            blocks = _parquet_blocks(path, columns)
        elif start[:3] == b"CDF" or start == b"\x89HDF":
            blocks = _netcdf_blocks(_opened(stream, path), columns, path)
        else:
            blocks = _csv_blocks(stream, columns, path)
        with closing(blocks):
            return _whole(blocks, columns, path, on_loss)


def read_netcdf(path: str | os.PathLike[str], on_loss: OnLoss = None) -> pd.DataFrame:
    """Read a netCDF file of points (plain, gzip, zip) whose columns a shipped map knows to an observation table.

    Args:
        path: the file.
        on_loss: as :func:`read_columns`.

    Raises:
        ValueError: naming the file and its variables, where no shipped map knows them; else as :func:`read_columns`.
        FileNotFoundError: where there is no such file.
    """
    with open_binary(path, on_loss) as stream:
        dataset = _opened(stream, path)
    found = set(map(str, dataset.variables))
    for columns in shipped_maps().values():
        if found.issuperset(columns.columns):
            return _whole(_netcdf_blocks(dataset, columns, path), columns, path, on_loss)
    raise ValueError(f"{path}: found netCDF variables {_listed(sorted(found))}, expected MADIS's or a column map")


def _whole(
    blocks: Iterable[pd.DataFrame], columns: ColumnMap, path: str | os.PathLike[str], on_loss: OnLoss
) -> pd.DataFrame:
    """The observation table of a file's blocks of rows."""
    first, tables = 1, []
    # The values of one place of a long table may lie anywhere.
    for block in blocks if columns.long is None else [pd.concat(list(blocks))]:
        tables.append(_table(block, columns, first, path, on_loss))
        first += len(block)
    table = joined(tables)
    refuse_wrong_units(table, str(path))
    return table


def _csv_blocks(
    stream: io.BufferedReader, columns: ColumnMap, path: str | os.PathLike[str]
) -> Generator[pd.DataFrame, None, None]:
    missing = [*_EMPTY, *(str(value) for value in columns.missing)]
    try:
        text = io.TextIOWrapper(stream, encoding=columns.encoding, newline="")
        for _ in range(columns.skip_rows):
            text.readline()
        names = _heading(text, columns, path)
        # By position, for pandas renames what is named twice, and takes rows with more cells than names to begin with an index.
        where = {str(names.index(name)): name for name in columns.columns if name in names}
        last = str(len(names))
        with pd.read_csv(
            _Headed(len(names) + 1, text, columns.separator),
            sep=columns.separator,
            decimal=columns.decimal,
            index_col=False,
            usecols=[*where, last],
            dtype={k: "str" for k, name in where.items() if name in (columns.station.column, columns.time.column)},
            # A station may be called NA.
            na_values={k: missing for k, name in where.items() if name != columns.station.column} | {last: [""]},
            keep_default_na=False,
            low_memory=False,
            chunksize=_BLOCK,
        ) as reader:
            for block in reader:
                yield block.rename(columns=where | {last: _MORE})
    except DamagedArchive:
        raise
    except (UnicodeError, LookupError) as error:
        found = f"found text that is not {columns.encoding} ({' '.join(str(error).split())[:80]})"
        raise ValueError(f"{path}: {found}, expected an encoding in the column map") from None
    except (pd.errors.ParserError, csv.Error, OverflowError) as error:
        raise ValueError(f"{path}: found no readable CSV ({' '.join(str(error).split())[:120]}), {_WHOLE}") from None


class _Headed(io.TextIOBase):
    """Lines under a heading of numbers."""

    def __init__(self, size: int, lines: io.TextIOWrapper, separator: str) -> None:
        self._heading = (" " if separator == BLANKS else separator).join(map(str, range(size))) + "\n"
        self._lines = lines

    def read(self, size: int | None = -1) -> str:
        heading, self._heading = self._heading, ""
        return heading + self._lines.read(size)


def _heading(text: io.TextIOWrapper, columns: ColumnMap, path: str | os.PathLike[str]) -> list[str]:
    """The names in the first line that is not blank, each of the map's once.

    Raises:
        ValueError: for no such line, or one of the map's names twice or not at all.
    """
    lines = iter(text.readline, "")
    line = next((line for line in lines if line.strip()), None)
    if line is None:
        raise ValueError(f"{path}: found no readable CSV (nothing but blank lines), expected a line of names")
    names = line.split() if columns.separator == BLANKS else next(csv.reader([line], delimiter=columns.separator))
    _refuse_absent(names, columns, path)
    twice = [name for name in columns.columns if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: found column {twice[0]!r} {names.count(twice[0])} times, expected it once")
    return names


def _refuse_absent(names: Iterable[str], columns: ColumnMap, path: str | os.PathLike[str]) -> None:
    """Refuse a file without a column that the map reads.

    Raises:
        ValueError: naming it and the columns that there are.
    """
    found = list(names)
    absent = next((name for name in columns.columns if name not in found), None)
    if absent is not None:
        alone = f" (the map's separator is {columns.separator!r})" if len(found) == 1 else ""
        raise ValueError(
            f"{path}: found no column {absent!r} among {_listed(found)}{alone}, expected the columns of the map"
        )


def _listed(names: list[str], most: int = 12) -> str:
    """Names for a message, each short and whole; a damaged file may have any."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(ascii(name if len(name) <= 60 else f"{name[:60]}…") for name in names[:most]) + more


def _parquet_blocks(path: str | os.PathLike[str], columns: ColumnMap) -> Generator[pd.DataFrame, None, None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            known = [name for name in columns.columns if name in names]
            for batch in file.iter_batches(_BLOCK, columns=known) if len(known) == len(columns.columns) else ():
                batch.validate(full=True)  # text that is no UTF-8 would show much later
                yield pa.Table.from_batches([batch]).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        detail = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: found no readable Parquet table ({detail}), {_WHOLE}") from None
    _refuse_absent(names, columns, path)


def _opened(stream: io.BufferedReader, path: str | os.PathLike[str]) -> Any:
    """The xarray dataset of a netCDF stream, values masked, times as numbers.

    Raises:
        ValueError: for what is no readable netCDF.
    """
    import xarray as xr

    data = stream.read()
    engine: Any = "scipy" if data[:3] == b"CDF" else "h5netcdf"
    if engine == "h5netcdf":
        _try_hdf5(data, path)
    try:
        return xr.open_dataset(io.BytesIO(data), engine=engine, decode_times=False).load()
    except Exception as error:  # the libraries below raise whatever a damaged file makes them stumble over
        detail = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: found no readable netCDF ({type(error).__name__}: {detail}), {_WHOLE}") from None


_READ_ALL = """
import io, resource, sys
import h5netcdf
data = sys.stdin.buffer.read()
limit = 5 + len(data) // 10_000_000
resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
with h5netcdf.File(io.BytesIO(data), "r") as file:
    for variable in file.variables.values():
        variable[...], dict(variable.attrs)
"""


def _try_hdf5(data: bytes, path: str | os.PathLike[str]) -> None:
    """Read everything once in a process of its own: HDF5 goes round in circles in some damaged files.

    Raises:
        ValueError: where that fails, or takes more processor seconds than any whole file would.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-P", "-c", _READ_ALL]
    process = subprocess.run(command, input=data, capture_output=True, env=environment, check=False)
    if process.returncode:
        lines = process.stderr.decode("utf-8", "replace").split("\n")
        detail = next((line for line in reversed(lines) if "Error" in line), f"status {process.returncode}")
        raise ValueError(f"{path}: found no readable netCDF ({' '.join(detail.split())[:120]}), {_WHOLE}")


def _netcdf_blocks(
    dataset: Any, columns: ColumnMap, path: str | os.PathLike[str]
) -> Generator[pd.DataFrame, None, None]:
    _refuse_absent(map(str, dataset.variables), columns, path)
    known = dataset[list(columns.columns)]
    size = int(np.prod([known.sizes[name] for name in known.sizes], dtype=np.float64))
    if size > _LARGEST:
        found = f"{size} places ({', '.join(f'{k} {v}' for k, v in known.sizes.items())})"
        raise ValueError(f"{path}: found {found}, expected records along one dimension")
    frame = (known if known.sizes else known.expand_dims("record")).to_dataframe().reset_index()
    for name in frame:
        if frame[name].dtype == object:
            frame[name] = _decoded(frame[name])
        frame[name] = frame[name].mask(frame[name].isin(columns.missing)) if columns.missing else frame[name]
    frame.attrs = {str(name): known[name].attrs.get("units") for name in known.variables}
    yield frame


def _decoded(cells: pd.Series) -> pd.Series:
    """Text of cells that hold bytes; each distinct one is decoded once."""
    codes, distinct = pd.factorize(cells, use_na_sentinel=False)
    text = [value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else value for value in distinct]
    return pd.Series(np.asarray([*text, None], dtype=object)[:-1][codes], index=cells.index)


def _table(
    frame: pd.DataFrame, columns: ColumnMap, first: int, path: str | os.PathLike[str], on_loss: OnLoss
) -> pd.DataFrame:
    """The observation table of a block of rows, the first of which has the number ``first``."""
    units = {str(name): text for name, text in frame.attrs.items()}
    frame = frame.set_axis(pd.RangeIndex(first, first + len(frame)))
    if _MORE in frame:
        for row, cell in frame[_MORE].dropna().items():
            found = f"found {str(cell)[:40]!r} beyond the last column"
            refuse(f"{path}: row {row}: {found}, expected a cell for each name", on_loss)
        frame = frame[frame[_MORE].isna()]
    quantities = columns.quantities
    if columns.long is not None:
        not_stored = _not_stored_of_long(frame, columns, columns.long)
        frame, quantities = _widened(frame, columns, columns.long)
    values = Cells(frame, columns.missing, units, str(path))
    coordinates = {
        name: values.coordinate(name, given)
        for name in ("latitude", "longitude", "elevation", "pressure")
        if (given := getattr(columns, name)) is not None
    }
    time = times(values, columns.time)
    reported: dict[str, Array] = {}
    errors: dict[str, Array] = {}
    denied: dict[str, NDArray[np.bool_]] = {}
    if columns.pressure is not None and columns.pressure.error is not None:
        errors["pressure"] = values.pressure_error(columns.pressure)
    for quantity, entry in quantities.items():
        name = "geopotential" if quantity == "height" else quantity
        factor, offset = values.conversion(quantity, entry.units, entry.column)[1]
        factor *= STANDARD_GRAVITY if quantity == "height" else 1.0
        reported[name] = values.of(entry.column) * factor + offset
        if entry.error is not None:
            errors[name] = values.error(entry.error) * factor
        if entry.good is not None:
            denied[name] = ~values.text(entry.good.column).isin([str(v) for v in entry.good.values]).to_numpy()
    for row, problem in sorted(values.wrong.items()):
        refuse(f"{path}: row {row}: {problem}", on_loss)
    keep = ~frame.index.isin(list(values.wrong))
    names = values.text(columns.station.column, columns.station.value)
    station, stations = pd.factorize(names)
    nothing = np.full(int(keep.sum()), np.nan)
    places = Places(
        stations=[str(name) for name in stations],
        station=np.asarray(station, dtype=np.intp)[keep],
        time=time[keep],
        latitude=coordinates["latitude"][keep],
        longitude=coordinates["longitude"][keep],
        elevation=coordinates["elevation"][keep] if "elevation" in coordinates else nothing,
        pressure=coordinates["pressure"][keep] if "pressure" in coordinates else None,
    )
    kept = [{name: array[keep] for name, array in part.items()} for part in (reported, errors)]
    table = observation_table(places, kept[0], columns.source, kept[1], {k: v[keep] for k, v in denied.items()})
    if columns.long is None:
        not_stored = {f"{name}: {_EMPTY_CELL}": np.isnan(values).sum() for name, values in kept[0].items()}
    return count_not_stored(table, not_stored)


def _not_stored_of_long(frame: pd.DataFrame, columns: ColumnMap, long: Long) -> dict[str, int]:
    """Rows of elements that the map doesn't have, and of those that it has the ones without a value."""
    known = frame[long.name].isin(list(long.quantities))
    empty = known & Cells(frame, columns.missing, {}, "").empty(long.value)
    groups = (("element {}: not in the map", ~known), (f"{{}}: {_EMPTY_CELL}", empty))
    return {
        text.format(str(name)[:40]): int(number)
        for text, rows in groups
        for name, number in frame.loc[rows, long.name].value_counts(dropna=False).items()
    }


def _widened(frame: pd.DataFrame, columns: ColumnMap, long: Long) -> tuple[pd.DataFrame, dict[str, Reported]]:
    """A long table with one column a quantity: rows that agree in place, time and station become one.

    A second value of a quantity at the same place begins another row, so that duplicates stay to be seen.
    """
    places = [getattr(columns, name) for name in ("station", "time", "latitude", "longitude", "elevation", "pressure")]
    keys = list(dict.fromkeys(place.column for place in places if place is not None and place.column is not None))
    frame = frame[frame[long.name].isin(list(long.quantities))]
    again = frame.groupby([*keys, long.name], dropna=False, sort=False).cumcount()
    where = frame.groupby([*keys, again], dropna=False, sort=False).ngroup().to_numpy()
    first = np.unique(where, return_index=True)[1]
    error = None if columns.pressure is None else columns.pressure.error
    wide = frame[[*keys, *([error] if isinstance(error, str) and error not in keys else [])]].iloc[first]
    quantities = {}
    for name, entry in long.quantities.items():
        rows = np.flatnonzero((frame[long.name] == name).to_numpy())
        copied = [long.value, *([long.error] if long.error else []), *([entry.good.column] if entry.good else [])]
        for column in copied:
            cells = frame[column].iloc[rows].set_axis(wide.index[where[rows]])
            wide[f"{name}: {column}"] = cells.reindex(wide.index)
        error = f"{name}: {long.error}" if long.error and entry.error is None else entry.error
        good = entry.good and entry.good.model_copy(update={"column": f"{name}: {entry.good.column}"})
        changes = {"column": f"{name}: {long.value}", "error": error, "good": good}
        quantities[entry.quantity or ""] = entry.model_copy(update=changes)
    return wide, quantities
