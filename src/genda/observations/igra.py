"""Integrated Global Radiosonde Archive, version 2: fixed-width text, one ``#`` header per sounding.

The layout is NOAA NCEI's "IGRA v2.2 Format Description" (19 January 2023). Files are read in blocks of whole
soundings and parsed by columns of bytes, so memory follows the block and no line is touched by Python.
Geopotential is reported height × 9.80665; specific humidity comes from the dew-point depression, else from the
relative humidity (:mod:`genda.observations.conversions`). −9999 (not reported) and −8888 (removed by the
archive's quality control) give no row. The time is the nominal hour, or the release time where that is missing.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from genda.observations.conversions import ZERO_CELSIUS
from genda.observations.files import OnLoss, open_binary, refuse, shown
from genda.observations.flags import LevelType
from genda.observations.period import Period
from genda.observations.soundings import Ascents, Levels, soundings_table
from genda.observations.stations import shipped_stations
from genda.observations.table import count_not_stored, joined
from genda.variables import STANDARD_GRAVITY

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
_BLOCK = 1 << 22
_LONGEST_SOUNDING = 1 << 20  # NUMLEV has four digits, a level 53 bytes
_HEADER_WIDTH, _LEVEL_WIDTH = 71, 51
# First and last column, counted from 1 as in the format description.
_HEADER = {
    "YEAR": (14, 17), "MONTH": (19, 20), "DAY": (22, 23), "HOUR": (25, 26), "RELTIME": (28, 31),
    "NUMLEV": (33, 36), "LAT": (56, 62), "LON": (64, 71),
}  # fmt: skip
_LEVEL = {
    "PRESS": (10, 15), "GPH": (17, 21), "TEMP": (23, 27), "RH": (29, 33), "DPDP": (35, 39), "WDIR": (41, 45),
    "WSPD": (47, 51),
}  # fmt: skip
_LEVEL_BLANKS = (3, 9, 34, 40, 46)
_LEVEL_TYPES = np.array(
    [
        [LevelType.STANDARD, LevelType.SURFACE, LevelType.STANDARD],
        [LevelType.SIGNIFICANT, LevelType.SURFACE, LevelType.TROPOPAUSE],
        [LevelType.SIGNIFICANT, LevelType.SURFACE, LevelType.TROPOPAUSE],
    ],
    dtype=np.int8,
)
"""By LVLTYP1 − 1 (standard pressure, other pressure, none) and LVLTYP2 (neither, surface, tropopause)."""


def read_igra(
    path: str | os.PathLike[str],
    stations: pd.DataFrame | None = None,
    period: Period | None = None,
    on_loss: OnLoss = None,
) -> pd.DataFrame:
    """Read an IGRA 2 sounding file (``.txt``, gzip or zip) to an observation table.

    Args:
        path: the file.
        stations: list that gives each station its elevation, as
            :func:`~genda.observations.stations.read_station_list`; the shipped list of active stations where None.
            Stations it doesn't hold get NaN: the sounding files carry no elevation.
        period: to keep; what is outside is let go block by block.
        on_loss: takes one line for every sounding that can't be read, which is left out then.

    Raises:
        ValueError: naming file, line, what was found and what was expected, where the file is no IGRA 2 file or is
            truncated.
        FileNotFoundError: where there is no such file.
    """
    elevations = (shipped_stations() if stations is None else stations).set_index("station")["elevation"]
    listed = set(elevations.index)
    tables = []
    unlisted: set[str] = set()
    with open_binary(path, on_loss) as stream:
        line = 1
        for block in _blocks(stream, path):
            for ascents, levels in _parsed(block, line, path, on_loss):
                ascents.elevation[:] = elevations.reindex(ascents.station).to_numpy(dtype=np.float64)
                unlisted |= set(np.unique(ascents.station)) - listed
                table = soundings_table(ascents, levels, "igra")
                tables.append(table if period is None else period.within(table))
            line += block.count(b"\n")
    return count_not_stored(joined(tables), {"elevation of a station: not in the list of stations": len(unlisted)})


def _blocks(stream: io.BufferedReader, path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Blocks of whole soundings."""
    rest = b""
    first = True
    while chunk := stream.read(_BLOCK):
        data = rest + chunk
        if first and data[:1] != b"#":
            raise ValueError(
                f"{path}: line 1: found {shown(data[:20])}, expected an IGRA 2 header that starts with '#'"
            )
        first = False
        # A short block is the last: nothing is left to join its last sounding.
        cut = data.rfind(b"\n#") + 1 if len(chunk) == _BLOCK else len(data)
        if cut:
            yield data[:cut]
        rest = data[cut:]
        if len(rest) > _BLOCK + _LONGEST_SOUNDING:
            raise ValueError(
                f"{path}: found {len(rest)} bytes without an IGRA 2 header, expected a '#' line per sounding"
            )
    if first:
        raise ValueError(f"{path}: found no content, expected IGRA 2 soundings")
    if rest:
        yield rest


def _parsed(
    block: bytes, first_line: int, path: str | os.PathLike[str], on_loss: OnLoss
) -> Iterator[tuple[Ascents, Levels]]:
    """What can be decoded of a block: where it is damaged, halves of it are tried in turn, down to single soundings."""
    try:
        yield _parse(block, first_line, path)
        return
    except ValueError as error:
        cut = block.find(b"\n#", len(block) // 2) + 1 or block.rfind(b"\n#", 0, len(block) // 2 + 1) + 1
        if on_loss is None or not cut:
            refuse(str(error), on_loss)
            return
    yield from _parsed(block[:cut], first_line, path, on_loss)
    yield from _parsed(block[cut:], first_line + block.count(b"\n", 0, cut), path, on_loss)


def _parse(block: bytes, first_line: int, path: str | os.PathLike[str]) -> tuple[Ascents, Levels]:
    """Decode a block of soundings."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    if data[-1] != ord("\n"):
        ends = np.append(ends, data.size)
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts - (data[np.maximum(ends - 1, 0)] == ord("\r"))
    is_header = data[np.minimum(starts, data.size - 1)] == ord("#")

    def fail(index: int, expected: str) -> ValueError:
        text = block[starts[index] : starts[index] + widths[index]]
        return ValueError(f"{path}: line {first_line + index}: found {shown(text)}, expected {expected}")

    needed = np.where(is_header, _HEADER_WIDTH, _LEVEL_WIDTH)
    wrong = np.flatnonzero((widths < needed) | (widths > needed + 1))
    if wrong.size:
        kind, width = ("header", _HEADER_WIDTH) if is_header[wrong[0]] else ("level", _LEVEL_WIDTH)
        raise fail(int(wrong[0]), f"an IGRA 2 {kind} line of {width} characters, not {widths[wrong[0]]}")

    header_lines = np.flatnonzero(is_header)
    level_lines = np.flatnonzero(~is_header)
    head, bad = _fields(_characters(data, starts[header_lines], _HEADER_WIDTH), _HEADER)
    if bad is not None:
        raise fail(
            int(header_lines[bad[0]]), f"an integer for {bad[1]} in columns {_HEADER[bad[1]][0]}–{_HEADER[bad[1]][1]}"
        )
    counts = np.diff(header_lines, append=is_header.size) - 1
    wrong = np.flatnonzero(counts != head["NUMLEV"])
    if wrong.size:
        k = wrong[0]
        raise fail(int(header_lines[k]), f"{head['NUMLEV'][k]} level lines below this header, not {counts[k]}")
    time, date, invalid = _times(head)
    if invalid.size:
        raise fail(int(header_lines[invalid[0]]), "a date, an hour 0–23 or 99, and a release time HHMM")
    latitude, longitude = head["LAT"] / 1e4, head["LON"] / 1e4
    invalid = np.flatnonzero((np.abs(latitude) > 90) | (np.abs(longitude) > 360))
    if invalid.size:
        raise fail(int(header_lines[invalid[0]]), "a latitude within ±90 and a longitude within ±360 degrees (× 10000)")
    names = _characters(data, starts[header_lines] + 1, 11)
    invalid = np.flatnonzero(((names < ord("0")) | (names > ord("z"))).any(axis=0))
    if invalid.size:
        raise fail(int(header_lines[invalid[0]]), "a station identifier of 11 letters and digits in columns 2–12")

    text = _characters(data, starts[level_lines], _LEVEL_WIDTH)
    types = ((text[0] >= ord("1")) & (text[0] <= ord("3"))) & ((text[1] >= ord("0")) & (text[1] <= ord("2")))
    blanks = np.logical_and.reduce([text[column - 1] == ord(" ") for column in _LEVEL_BLANKS])
    wrong = np.flatnonzero(~(types & blanks))
    if wrong.size:
        raise fail(int(level_lines[wrong[0]]), "level types 1–3 and 0–2, then blank-separated IGRA 2 columns")
    body, bad = _fields(text, _LEVEL)
    if bad is not None:
        raise fail(
            int(level_lines[bad[0]]), f"an integer for {bad[1]} in columns {_LEVEL[bad[1]][0]}–{_LEVEL[bad[1]][1]}"
        )

    station = np.ascontiguousarray(names.T).view("S11").ravel().astype("U11")
    ascents = Ascents(station, time, latitude, longitude, np.full(latitude.size, np.nan), date)
    return ascents, _levels(body, np.repeat(np.arange(counts.size), counts), text[0], text[1])


def _characters(data: Bytes, starts: NDArray[np.intp], width: int) -> Bytes:
    """Characters by column, (width, line)."""
    if not starts.size:
        return np.empty((width, 0), dtype=np.uint8)
    return np.ascontiguousarray(sliding_window_view(data, width)[starts].T)


def _fields(text: Bytes, layout: dict[str, tuple[int, int]]) -> tuple[dict[str, Ints], tuple[int, str] | None]:
    """Right-justified integers of every named field, and the first line and field that is none."""
    values: dict[str, Ints] = {}
    for name, (first, last) in layout.items():
        value = np.zeros(text.shape[1], dtype=np.int32)
        negative = np.zeros(text.shape[1], dtype=bool)
        begun = np.zeros(text.shape[1], dtype=bool)
        wrong = np.zeros(text.shape[1], dtype=bool)
        for column in range(first - 1, last):
            characters = text[column]
            digit = characters - ord("0")  # unsigned: anything below '0' wraps to a large number
            is_digit = digit < 10
            minus = characters == ord("-")
            wrong |= ~is_digit & (begun | ~(minus | (characters == ord(" "))))
            value *= 10
            value += digit * is_digit
            begun |= is_digit | minus
            negative |= minus
        wrong |= ~is_digit
        if wrong.any():
            return values, (int(np.flatnonzero(wrong)[0]), name)
        values[name] = np.where(negative, -value, value).astype(np.int64)
    return values, None


def _times(head: dict[str, Ints]) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64], NDArray[np.intp]]:
    """Time (NaT where no hour is known), day, and the indices of impossible dates."""
    hour, release_hour, release_minute = head["HOUR"], head["RELTIME"] // 100, head["RELTIME"] % 100
    month = ((head["YEAR"] - 1970) * 12 + head["MONTH"] - 1).astype("datetime64[M]")
    date = month.astype("datetime64[D]") + (head["DAY"] - 1).astype("timedelta64[D]")
    valid = (head["YEAR"] >= 1800) & (head["YEAR"] < 2200) & (head["MONTH"] >= 1) & (head["MONTH"] <= 12)
    valid &= (head["DAY"] >= 1) & (date.astype("datetime64[M]") == month)
    valid &= ((hour >= 0) & (hour <= 23)) | (hour == 99)
    valid &= ((release_hour >= 0) & (release_hour <= 23)) | (release_hour == 99)
    valid &= ((release_minute >= 0) & (release_minute <= 59)) | (release_minute == 99)
    nominal = hour != 99
    hours = np.where(nominal, hour, release_hour)
    minutes = np.where(nominal | (release_minute == 99), 0, release_minute)
    time = date.astype("datetime64[m]") + (60 * hours + minutes).astype("timedelta64[m]")
    return np.where(hours == 99, np.datetime64("NaT"), time), date, np.flatnonzero(~valid)


def _levels(body: dict[str, Ints], ascent: NDArray[np.intp], major: Bytes, minor: Bytes) -> Levels:
    """SI levels: pressure Pa, height m, temperature 0.1 °C, humidity 0.1 %, wind ° and 0.1 m/s."""
    values = {
        name: np.where((raw == -9999) | (raw == -8888), np.nan, raw.astype(np.float64)) for name, raw in body.items()
    }
    temperature = values["TEMP"] / 10 + ZERO_CELSIUS
    return Levels(
        ascent=ascent,
        pressure=values["PRESS"],
        geopotential=values["GPH"] * STANDARD_GRAVITY,
        temperature=temperature,
        dewpoint=temperature - values["DPDP"] / 10,
        relative_humidity=values["RH"] / 1000,
        wind_direction=values["WDIR"],
        wind_speed=values["WSPD"] / 10,
        level_type=_LEVEL_TYPES[major - ord("1"), minor - ord("0")],
    )
