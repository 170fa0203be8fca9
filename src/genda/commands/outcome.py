"""What every command does: say what it found, and refuse an output that cannot be written before anything is computed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genda.state import NETCDF_SUFFIXES, ZARR_SUFFIX, State

Progress = Callable[[int, int], None]
TABLE_SUFFIXES = (".parquet", ".pq")
PAIR = "pair"
"""Coordinate of an analysis file's members that come in pairs from opposite noise, one number for both; a last one may be alone."""


@dataclass(frozen=True)
class Outcome:
    """What a command has to say: the same facts as text and as a JSON document."""

    text: str
    document: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.document)


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path] = ()) -> None:
    """Refuse outputs that cannot be written, or would take the place of an input or of each other, before anything is done."""
    taken = {path.resolve(): "input" for path in inputs}
    for path in outputs:
        if path is None:
            continue
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: found no folder {path.parent}, expected one to write to")
        if path.resolve() in taken:
            raise ValueError(f"{path}: found it among the {taken[path.resolve()]}, expected another name to write to")
        if path.is_dir():
            raise ValueError(f"{path}: found a folder, expected the name of a file to write")
        check_writable(path.absolute().parent)
        taken[path.resolve()] = "output"


def check_suffix(out: Path) -> None:
    """Refuse a data set's name that does not say what it is to be."""
    if out.suffix not in (*NETCDF_SUFFIXES, ZARR_SUFFIX):
        expected = ", ".join((*NETCDF_SUFFIXES, ZARR_SUFFIX))
        raise ValueError(f"{out}: found the suffix {out.suffix!r}, expected one of {expected}")


def check_table_suffix(out: Path | None) -> None:
    """Refuse the name of a table that says it is something else than the Parquet it will be."""
    if out is not None and out.suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{out}: found the suffix {out.suffix!r}, expected {TABLE_SUFFIXES[0]}, as tables are written")


def counted(number: int, thing: str) -> str:
    """A number of things in words, one of which has no s."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written; one still to be made is judged by that it will be made in."""
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise ValueError(f"{folder}: found no way to write there ({error.strerror}), expected one") from error


def iso(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="m"))


def at(state: State, time: np.datetime64, path: Path) -> State:
    """The state of one time of a file; what names no time is of any.

    Raises:
        ValueError: for a file without that time.
    """
    if len(state.times) == 1 and (np.isnat(time) or np.isnat(state.times[0])):
        return State(state.values, state.channels, state.grid, np.array([time]))
    index = np.flatnonzero(state.times == time)
    if not index.size:
        raise ValueError(f"{path}: found times {iso(state.times[0])} to {iso(state.times[-1])}, expected {iso(time)}")
    i = int(index[0])
    return State(state.values[i : i + 1], state.channels, state.grid, state.times[i : i + 1])
