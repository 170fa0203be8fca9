"""Radiosonde ascents in WMO BUFR (TEMP, TEMP SHIP, high-resolution descendants; data category 2).

The messages' framing is checked here, section by section, so that a truncated or foreign file is refused by name and
byte; :mod:`genda.observations.bufr_decode` decodes what is whole, in a process of its own. Geopotential is taken as
reported, or from the height; specific humidity from the dew point; wind from direction and speed. Needs the extra
``genda[bufr]``.
"""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genda.observations import bufr_decode
from genda.observations.files import open_binary
from genda.observations.soundings import Ascents, Levels, soundings_table
from genda.observations.table import empty
from genda.variables import STANDARD_GRAVITY

SOUNDINGS = 2
"""BUFR table A: vertical soundings (other than satellite)."""
_BATCH_BYTES, _BATCH_MESSAGES = 1 << 24, 2000
_MOST_SUBSETS = 1000
_SEARCH = 1 << 16  # between messages: bulletin headings and padding, never much


def read_bufr(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read every ascent of a BUFR file (plain, gzip or zip) to an observation table.

    Raises:
        ValueError: naming file and message, what was found and what was expected, for a file that is no BUFR, is
            truncated or damaged, or holds anything but vertical soundings.
        ModuleNotFoundError: without ecCodes.
        FileNotFoundError: where there is no such file.
    """
    if importlib.util.find_spec("eccodes") is None:
        raise ModuleNotFoundError("reading BUFR needs ecCodes: install the extra with  pip install 'genda[bufr]'")
    tables = []
    with open_binary(path) as stream:
        first = 1
        for batch in _batches(stream, path):
            ascents, levels = _ascents(_decode(batch, first, path), first, path)
            tables.append(soundings_table(ascents, levels, "bufr-temp"))
            first += len(batch)
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else empty()


def _batches(stream: io.BufferedReader, path: str | os.PathLike[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for message in _messages(stream, path):
        if batch and (len(batch) == _BATCH_MESSAGES or size + len(message) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message)
    yield batch


def _messages(stream: io.BufferedReader, path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Whole messages whose sections add up."""
    number, position, rest = 0, 0, b""
    while True:
        rest += stream.read(_SEARCH - len(rest)) if len(rest) < _SEARCH else b""
        start = rest.find(b"BUFR")
        if start < 0:
            if number == 0:
                raise ValueError(f"{path}: found no 'BUFR' in the first {len(rest)} bytes, expected a BUFR file")
            if len(rest) >= _SEARCH:
                raise ValueError(
                    f"{path}: byte {position}: found {len(rest)} bytes without 'BUFR' after message {number}"
                )
            return
        number += 1
        position += start
        rest = rest[start:]
        where = f"{path}: message {number} at byte {position}"
        length = int.from_bytes(rest[4:7], "big")
        if len(rest) < length:
            rest += stream.read(length - len(rest))
        if len(rest) < max(length, 8):
            raise ValueError(
                f"{where}: found {len(rest)} bytes, expected {length or 'a section of 8'}: the file is truncated"
            )
        _check_sections(rest[:length], where)
        yield rest[:length]
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
    if found != SOUNDINGS:
        raise ValueError(f"{where}: found BUFR data category {found}, expected {SOUNDINGS} (vertical soundings)")
    subsets = int.from_bytes(message[starts["3"] + 4 : starts["3"] + 6], "big")
    if not 1 <= subsets <= _MOST_SUBSETS:
        raise ValueError(f"{where}: found {subsets} subsets, expected 1 to {_MOST_SUBSETS}")


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
        text = process.stdout.decode("utf-8", "replace")
        number, _, reason = text.partition(" ")
        if not number.isdigit():
            raise RuntimeError(f"reading BUFR: ecCodes failed to start ({text})")
        raise ValueError(
            f"{path}: message {first + int(number)}: found damaged content ({reason}), expected a radiosonde report"
        )
    if process.returncode != 0:
        raise ValueError(f"{path}: {which}: found damaged content (decoder ended with status {process.returncode})")
    with np.load(io.BytesIO(process.stdout), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _ascents(data: dict[str, Any], first: int, path: str | os.PathLike[str]) -> tuple[Ascents, Levels]:
    """Ascents and levels in SI units from decoded arrays.

    Raises:
        ValueError: for a date or position that can't exist.
    """
    date, time = _times(data)
    # BUFR's finest resolution is 1e-5 degrees; its scaling turns the pole into -90.00000000000001.
    latitude, longitude = np.round(data["latitude"], 5), np.round(data["longitude"], 5)
    for name, wrong in (
        ("date", np.isnat(date)),
        ("latitude", np.abs(latitude) > 90),
        ("longitude", np.abs(longitude) > 360),
    ):
        if wrong.any():
            k = int(np.flatnonzero(wrong)[0])
            found = "/".join(f"{data[part][k]:g}" for part in ("year", "month", "day", "hour", "minute"))
            found = found if name == "date" else f"{data[name][k]:g}"
            raise ValueError(
                f"{path}: ascent of station {data['station'][k]}: found {name} {found}, expected one that exists"
            )
    ascent = np.repeat(np.arange(data["levels"].size), data["levels"])
    geopotential = data["nonCoordinateGeopotential"]
    height = data["nonCoordinateGeopotentialHeight"]
    level_latitude = latitude[ascent] + np.nan_to_num(data["latitudeDisplacement"])
    level_longitude = longitude[ascent] + np.nan_to_num(data["longitudeDisplacement"])
    over_pole = np.abs(level_latitude) > 90
    level_longitude = np.where(over_pole, level_longitude + 180.0, level_longitude)
    level_latitude = np.where(over_pole, np.sign(level_latitude) * 180.0 - level_latitude, level_latitude)
    levels = Levels(
        ascent=ascent,
        pressure=data["pressure"],
        geopotential=np.where(np.isnan(geopotential), height * STANDARD_GRAVITY, geopotential),
        temperature=data["airTemperature"],
        dewpoint=data["dewpointTemperature"],
        relative_humidity=np.full(ascent.size, np.nan),
        wind_direction=data["windDirection"],
        wind_speed=data["windSpeed"],
        latitude=np.clip(level_latitude, -90.0, 90.0),
        longitude=level_longitude,
    )
    return Ascents(data["station"], time, latitude, longitude, data["elevation"], date), levels


def _times(data: dict[str, Any]) -> tuple[Any, Any]:
    """Day (NaT where it can't exist) and time (NaT where the hour is missing), to the second."""
    year, month, day = (np.nan_to_num(data[k], nan=0.0).astype(np.int64) for k in ("year", "month", "day"))
    hour = data["hour"]
    minute, second = (np.nan_to_num(data[k], nan=0.0) for k in ("minute", "second"))
    start = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = start.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    valid = (year >= 1900) & (year < 2200) & (month >= 1) & (month <= 12) & (day >= 1)
    valid &= (date.astype("datetime64[M]") == start) & ~(hour > 24) & (minute < 60) & (second <= 60)
    date = np.where(valid, date, np.datetime64("NaT"))
    seconds = (3600 * np.nan_to_num(hour) + 60 * minute + second).astype(np.int64).astype("timedelta64[s]")
    time = np.where(np.isnan(hour), np.datetime64("NaT"), date.astype("datetime64[s]") + seconds)
    return date, time
