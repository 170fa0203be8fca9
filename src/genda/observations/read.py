"""Read any supported observation files to one table, recognising each by its content."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pandas as pd

from genda.observations.bufr import read_bufr
from genda.observations.files import open_binary
from genda.observations.igra import read_igra
from genda.observations.table import read_table, validate

_HEADING = 256  # bytes a bulletin heading may put before the first BUFR message


def file_format(path: str | os.PathLike[str]) -> str:
    """What a file holds, "igra", "bufr" or "parquet", whatever the file is called; gzip and zip are looked into.

    Raises:
        ValueError: for anything else, saying what the file starts with.
        FileNotFoundError: where there is no such file.
    """
    with open_binary(path) as stream:
        start = stream.read(_HEADING)
    if start[:4] == b"PAR1":
        return "parquet"
    if start[:1] == b"#":
        return "igra"
    if b"BUFR" in start:
        return "bufr"
    raise ValueError(
        f"{path}: found a file that starts with {start[:12]!r}, expected IGRA 2 ('#'), BUFR ('BUFR') or Parquet ('PAR1')"
    )


def read_observations(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], stations: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Read observation files, IGRA 2, BUFR TEMP or Parquet, plain or (the first two) in gzip or zip.

    Args:
        paths: one file or several, of any mixture.
        stations: station list for elevations in IGRA files; the shipped one where None.

    Returns:
        one valid table, files in the order given.

    Raises:
        ValueError: one line naming the file, what was found and what was expected.
        FileNotFoundError: for a file that isn't there.
        ModuleNotFoundError: for BUFR without the extra ``genda[bufr]``.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not several:
        raise ValueError("observations: found no files, expected at least one")
    tables = []
    for path in several:
        kind = file_format(path)
        if kind == "igra":
            table = read_igra(path, stations)
        else:
            table = read_bufr(path) if kind == "bufr" else read_table(path)
        validate(table, str(path))
        tables.append(table)
    return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
