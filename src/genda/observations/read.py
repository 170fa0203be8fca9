"""Read any supported observation files to one table, recognising each by its content."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from genda.observations.bufr import read_bufr
from genda.observations.column_map import ColumnMap, column_map
from genda.observations.columns import read_columns, read_netcdf
from genda.observations.files import OnLoss, open_binary, refuse
from genda.observations.igra import read_igra
from genda.observations.period import Period
from genda.observations.plausibility import refuse_hectopascals
from genda.observations.table import joined, read_table, validate

logger = logging.getLogger(__name__)
_HEADING = 256  # bytes a bulletin heading may put before the first BUFR message
_LONGEST_IGRA_HEADER = 75  # characters of a sounding's; a header of derived parameters has twice as many
_STATION = re.compile(rb"[A-Z]{2}[A-Z0-9]{9} [ 0-9.-]{8} [ 0-9.-]{9} ")


def file_format(path: str | os.PathLike[str]) -> str:
    """What a file holds, whatever it is called; gzip and zip are looked into.

    Returns:
        "igra", "igra-derived", "igra-stations", "bufr", "parquet" or "netcdf".

    Raises:
        ValueError: for anything else, saying what the file starts with.
        FileNotFoundError: where there is no such file.
    """
    with open_binary(path) as stream:
        start = stream.read(_HEADING)
    if not start:
        raise ValueError(f"{path}: found nothing in the archive, expected observations")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}: found text in UTF-16, expected UTF-8 (or a column map that says so)")
    if start[:4] == b"PAR1":
        return "parquet"
    if start[:1] == b"#":
        return "igra" if len(start.split(b"\n")[0]) <= _LONGEST_IGRA_HEADER else "igra-derived"
    if start[:3] == b"CDF" or start[:4] == b"\x89HDF":
        return "netcdf"
    if _STATION.match(start):
        return "igra-stations"
    if b"BUFR" in start:
        return "bufr"
    raise ValueError(
        f"{path}: found a file that starts with {start[:12]!r}, expected IGRA 2 ('#'), BUFR ('BUFR'), Parquet ('PAR1') or "
        "netCDF ('CDF', HDF5), or a column map for any other table"
    )


def read_observations(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    stations: pd.DataFrame | None = None,
    columns: ColumnMap | Mapping[str, Any] | None = None,
    on_loss: Callable[[str], None] | None = None,
    period: Period | None = None,
) -> pd.DataFrame:
    """Read observation files: IGRA 2, BUFR (TEMP, SYNOP, SHIP, AMDAR), MADIS netCDF, Parquet tables of this package, plain or
    (all but Parquet) in gzip or zip; CSV, Parquet and netCDF of any layout with a column map.

    Files of IGRA's derived parameters are left out with a warning: the sounding files hold what was observed.

    Args:
        paths: one file or several, of any mixture.
        stations: station list for elevations in IGRA files; the shipped one where None.
        columns: what the columns of the files mean (:mod:`genda.observations.column_map`), where they are of no known kind.
        on_loss: takes one line for every part of a file that can't be read; the good rest is kept. None: any damage raises.
        period: to keep; it counts the rows outside, which are let go file by file, of IGRA block by block.

    Returns:
        one valid table, files in the order given.

    Raises:
        ValueError: one line naming the file, what was found and what was expected.
        FileNotFoundError: for a file that isn't there.
        ModuleNotFoundError: for BUFR without the extra ``bufr``.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not several:
        raise ValueError("observations: found no files, expected at least one")
    mapped = columns if columns is None or isinstance(columns, ColumnMap) else column_map(columns)
    tables, reasons = [], []

    def lost(line: str) -> None:
        reasons.append(line)
        refuse(line, on_loss)

    for path in several:
        try:
            reader = _reader(path, stations, mapped, period)
            if reader is None:
                logger.warning("%s: found IGRA's derived parameters, ignored: its sounding files are read", path)
                continue
            table = reader(path, on_loss=on_loss and lost)
            if period is None or len(table):
                validate(table, str(path))
                refuse_hectopascals(table, str(path))
            tables.append(table if period is None else period.within(table))
        except ValueError as error:
            text = " ".join(str(error).split())
            lost(text if str(path) in text else f"{path}: {text}")
    if not tables:
        why = f": {reasons[0]}" if reasons else ", expected observations"
        raise ValueError(f"{', '.join(map(str, several))}: found nothing that could be read{why}")
    table = joined(tables)
    if period is not None and table.empty:
        raise ValueError(
            f"{', '.join(map(str, several))}: found {period.left_out} rows outside {period}, expected some inside"
        )
    return table


def _reader(
    path: str | os.PathLike[str], stations: pd.DataFrame | None, columns: ColumnMap | None, period: Period | None
) -> Callable[..., pd.DataFrame] | None:
    """What reads a file; None for one that is to be left out.

    Raises:
        ValueError: for a file that holds no observations, or needs a column map.
    """
    if columns is not None:
        return partial(read_columns, columns=columns)
    kind = file_format(path)
    if kind == "igra":
        return partial(read_igra, stations=stations, period=period)
    if kind == "igra-stations":
        raise ValueError(f"{path}: found IGRA's station list, expected observations (the list goes to --stations)")
    return {"igra-derived": None, "bufr": read_bufr, "netcdf": read_netcdf, "parquet": _read_own}[kind]


def _read_own(path: str | os.PathLike[str], on_loss: OnLoss = None) -> pd.DataFrame:
    return read_table(path)
