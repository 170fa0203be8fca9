"""Reports in WMO BUFR: radiosondes (TEMP, its descendants of high resolution), SYNOP, SHIP and buoys, AMDAR and AIREP.

The messages' framing is checked here, section by section, so that a truncated or foreign file is refused by name and
byte; :mod:`genda.observations.bufr_decode` decodes what is whole, in a process of its own, and
:mod:`genda.observations.bufr_tables` makes a table of it. Needs the extra ``bufr``.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genda.extras import require
from genda.observations import bufr_decode
from genda.observations.bufr_decode import AIRCRAFT, SOUNDINGS, SURFACE
from genda.observations.bufr_tables import report_tables
from genda.observations.files import OnLoss, open_binary, refuse
from genda.observations.table import joined

CATEGORIES = (*SURFACE, SOUNDINGS, AIRCRAFT)
_BATCH_BYTES, _BATCH_MESSAGES = 1 << 24, 2000
_MOST_SUBSETS = 1000
_SEARCH = 1 << 16  # between messages: bulletin headings and padding, never much


def read_bufr(path: str | os.PathLike[str], on_loss: OnLoss = None) -> pd.DataFrame:
    """Read every report of a BUFR file (plain, gzip or zip) to an observation table.

    Args:
        path: the file.
        on_loss: takes one line for every message or report that can't be read, which is left out then.

    Raises:
        ValueError: naming file and message, what was found and what was expected, for a file that is no BUFR, is
            truncated or damaged, or holds anything but surface, sounding and aircraft reports.
        ImportError: without ecCodes, or where it does not start.
        FileNotFoundError: where there is no such file.
    """
    require("eccodes", "bufr", f"{path}: reading BUFR")
    tables: list[pd.DataFrame] = []
    with open_binary(path, on_loss) as stream:
        first = 1
        for batch in _batches(stream, path, on_loss):
            for data in _decoded(batch, first, path, on_loss):
                tables += report_tables(data, path, on_loss)
            first += len(batch)
    return joined(tables)


def _batches(stream: io.BufferedReader, path: str | os.PathLike[str], on_loss: OnLoss = None) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for message in _messages(stream, path, on_loss):
        if batch and (len(batch) == _BATCH_MESSAGES or size + len(message) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message)
    yield batch


def _messages(stream: io.BufferedReader, path: str | os.PathLike[str], on_loss: OnLoss = None) -> Iterator[bytes]:
    """Whole messages whose sections add up; after one that doesn't, the next 'BUFR' is looked for."""
    number, position, rest = 0, 0, b""
    while True:
        rest += stream.read(_SEARCH - len(rest)) if len(rest) < _SEARCH else b""
        start = rest.find(b"BUFR")
        if start < 0:
            if number == 0:
                raise ValueError(f"{path}: found no 'BUFR' in the first {len(rest)} bytes, expected a BUFR file")
            if len(rest) >= _SEARCH:
                refuse(
                    f"{path}: byte {position}: found {len(rest)} bytes without 'BUFR' after message {number}", on_loss
                )
            return
        number += 1
        position += start
        rest = rest[start:]
        where = f"{path}: message {number} at byte {position}"
        length = int.from_bytes(rest[4:7], "big")
        if len(rest) < length:
            rest += stream.read(length - len(rest))
        try:
            if len(rest) < max(length, 8):
                raise ValueError(
                    f"{where}: found {len(rest)} bytes, expected {length or 'a section of 8'}: the file is truncated"
                )
            _check_sections(rest[:length], where)
            yield rest[:length]
        except ValueError as error:
            refuse(str(error), on_loss)
            length = 4  # whether its length is right, nobody knows
        rest = rest[length:]
        position += length


def _check_sections(message: bytes, where: str) -> None:
    """Edition, category and subsets are readable, and the sections fill the message exactly.

    Raises:
        ValueError: saying which does not hold.
    """
    edition = message[7] if len(message) > 7 else 0
    if edition not in (2, 3, 4):
        raise ValueError(f"{where}: found BUFR edition {edition}, expected 2, 3 or 4")
    flag, category = (9, 10) if edition == 4 else (7, 8)
    shortest = [("1", category + 8), ("3", 9), ("4", 4)]
    if len(message) > 8 + flag and message[8 + flag] & 128:
        shortest.insert(1, ("2", 4))
    position = 8
    starts = {}
    for section, smallest in shortest:
        starts[section] = position
        size = int.from_bytes(message[position : position + 3], "big")
        if size < smallest or position + size > len(message) - 4:
            raise ValueError(
                f"{where}: section {section}: found {size} bytes, expected {smallest} to {len(message) - 4 - position}"
            )
        position += size
    if message[position:] != b"7777":
        raise ValueError(f"{where}: found {message[position:][:8]!r} after the sections, expected b'7777'")
    found = message[8 + category]
    if found not in CATEGORIES:
        expected = "0 or 1 (surface), 2 (vertical soundings) or 4 (aircraft)"
        raise ValueError(f"{where}: found BUFR data category {found}, expected {expected}")
    subsets = int.from_bytes(message[starts["3"] + 4 : starts["3"] + 6], "big")
    if not 1 <= subsets <= _MOST_SUBSETS:
        raise ValueError(f"{where}: found {subsets} subsets, expected 1 to {_MOST_SUBSETS}")


def _decoded(batch: list[bytes], first: int, path: str | os.PathLike[str], on_loss: OnLoss) -> Iterator[dict[str, Any]]:
    """Arrays of what can be decoded of a batch: where the decoder dies, halves of it are tried in turn."""
    try:
        data = _decode(batch, first, path)
    except ValueError as error:
        if on_loss is None or len(batch) == 1:
            refuse(str(error), on_loss)
            return
        middle = len(batch) // 2
        yield from _decoded(batch[:middle], first, path, on_loss)
        yield from _decoded(batch[middle:], first + middle, path, on_loss)
        return
    for number, reason in zip(data["failed"], data["reasons"], strict=True):
        refuse(f"{path}: message {first + int(number)}: found damaged content ({reason}), expected a report", on_loss)
    yield data


def _decode(batch: list[bytes], first: int, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arrays of :func:`genda.observations.bufr_decode.decode`."""
    script = str(Path(bufr_decode.__file__))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "OPENBLAS_NUM_THREADS": "1",  # no pool of threads for a process that multiplies nothing
    }
    last = first + len(batch) - 1
    which = f"message {first}" if first == last else f"messages {first}–{last}"
    limit = 60 + len(batch) / 2  # s; a message takes 10 ms
    try:
        # -P: this directory's module names must not shadow anybody's.
        process = subprocess.run(
            [sys.executable, "-P", script],
            input=b"".join(batch),
            capture_output=True,
            timeout=limit,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path}: {which}: found damaged content (undecoded after {limit:g} s)") from None
    if process.returncode == 3:
        raise ImportError(f"reading BUFR: ecCodes failed to start ({process.stdout.decode('utf-8', 'replace')})")
    if process.returncode != 0:
        raise ValueError(f"{path}: {which}: found damaged content (decoder ended with status {process.returncode})")
    with np.load(io.BytesIO(process.stdout), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
