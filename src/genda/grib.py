"""GRIB files by cfgrib, whole or not at all.

cfgrib logs what it cannot decode and goes on without it, so that half a download looks like a shorter one. Here the frames of all
messages are walked first: each opens with ``GRIB`` and its own length and closes with ``7777``, and between two there may be
padding or the text of a bulletin, which eccodes passes over as well. Only heads and tails are read.

Reference: WMO manual on codes I.2, FM 92 GRIB, section 0 (edition 1: length in octets 5-7; edition 2: in octets 9-16).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import xarray as xr

from genda.extras import installing

_CHUNK = 4096
"""Bytes read at a time between messages."""
_BULLETIN = bytes([*range(0x20), *range(0x20, 0x7F)])
"""What may stand between messages: padding, control characters and the letters of a bulletin's heading."""


class DamagedError(ValueError):
    """A GRIB file that is cut off or damaged; says which file, message and byte."""


def open_grib(path: Path) -> list[xr.Dataset]:
    """The hypercubes of a file, lazily, with cfgrib's names.

    Raises:
        DamagedError: for a message that is cut off or damaged, and for a file without any.
        ModuleNotFoundError: without cfgrib.
    """
    try:
        import cfgrib
    except ImportError:
        raise ModuleNotFoundError(
            f"{path}: found GRIB without the package cfgrib, expected it: {installing('grib')}"
        ) from None
    check_messages(path)
    without_index = {"indexpath": ""}  # which would be written beside the data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of xarray to cfgrib
        cubes: Sequence[xr.Dataset] = cfgrib.open_datasets(str(path), backend_kwargs=without_index)
    return list(cubes)


def check_messages(path: Path) -> int:
    """The number of messages of a file, all of them framed as they should be.

    Raises:
        DamagedError: naming the file, the message and the byte at which it begins.
    """
    count, end, size = 0, 0, path.stat().st_size
    with path.open("rb") as file:
        while (start := _next_message(file, end, path)) is not None:
            count += 1
            message = f"{path}: message {count} at byte {start}"
            if size - start < 16:
                raise DamagedError(f"{message}: found the file cut off after {size - start} bytes, expected all of it")
            length = _length(file, start)
            end = start + length
            expected = f"{message}: expected {length} bytes that end in '7777'"
            if end > size:
                raise DamagedError(f"{expected}, found the file cut off after {size - start}")
            file.seek(max(start, end - 4))
            if length < 16 or file.read(4) != b"7777":
                raise DamagedError(f"{expected}, found no such end: damaged")
    if not count:
        raise DamagedError(f"{path}: found no GRIB message, expected at least one")
    return count


def _next_message(file: BinaryIO, at: int, path: Path) -> int | None:
    """Where the next message begins, at or after a byte; None at the end of the file."""
    while True:
        file.seek(at)
        chunk = file.read(_CHUNK)
        found = chunk.find(b"GRIB")
        between = chunk if found < 0 else chunk[:found]
        if strange := between.translate(None, _BULLETIN):
            where = at + between.index(strange[:1])
            raise DamagedError(f"{path}: found bytes at {where} that belong to no GRIB message, expected one: damaged")
        if found >= 0:
            return at + found
        if len(chunk) < _CHUNK:
            if chunk.endswith((b"G", b"GR", b"GRI")):
                raise DamagedError(
                    f"{path}: found the file cut off after the first letters of a message, expected all of it"
                )
            return None
        at += len(chunk) - 3  # the four letters may lie across two chunks


def _length(file: BinaryIO, start: int) -> int:
    """Length in bytes of the message at a byte, by its own account."""
    file.seek(start)
    head = file.read(16)
    if head[7:8] != b"\x01":
        return int.from_bytes(head[8:16], "big")
    length = int.from_bytes(head[4:7], "big")
    if length < 0x800000:
        return length
    # ECMWF's large messages of edition 1: the length counts units of 120 bytes, less what section 4 says in place of its own.
    file.seek(start + 8)
    section_1 = file.read(8)
    at = start + 8 + int.from_bytes(section_1[:3], "big")
    for flag in (0x80, 0x40):  # whether sections 2 and 3 are there
        if section_1[7] & flag:
            file.seek(at)
            at += int.from_bytes(file.read(3), "big")
    file.seek(at)
    section_4 = int.from_bytes(file.read(3), "big")
    return length if section_4 >= 120 else (length & 0x7FFFFF) * 120 - section_4 + 4
