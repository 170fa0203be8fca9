"""The cells of somebody else's table as numbers, coordinates, text and times in SI units and UTC."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.observations.column_map import Column, Pressure
from genda.observations.conversions import standard_pressure
from genda.observations.units import conversion

Array = NDArray[np.float64]
_SINCE = re.compile(r"(second|minute|hour|day)s? since (.+)")
_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_NOW = ("now", "today")
"""What pandas takes for the time at which it reads."""
_SHORTEST_DATE = len("2020-1-1")
_EARLIEST, _LATEST = pd.Timestamp("1800", tz="UTC"), pd.Timestamp("2200", tz="UTC")
_FURTHEST = 9e9
"""Seconds from the start of a count of time to what nanoseconds can still hold."""


class Cells:
    """The cells of a block as numbers, times and text; ``wrong`` collects the first problem of every row that has one."""

    def __init__(self, frame: pd.DataFrame, missing: list[Any], units: dict[str, str | None], path: str) -> None:
        self.frame, self._missing, self.units, self.path = frame, missing, units, path
        self.wrong: dict[int, str] = {}

    def of(self, column: str | None, value: Any = None) -> Array:
        """Numbers of a column, NaN where missing; of a constant where there is no column."""
        if column is None:
            return np.full(len(self.frame), float(value))
        numbers, empty = self._numbers(column)
        cells = self.frame[column]
        for row in self.frame.index[~empty & ~np.isfinite(numbers)]:
            self.reject(row, f"column {column!r}: found {str(cells[row])[:40]!r}, expected a number")
        return np.where(empty, np.nan, numbers)

    def empty(self, column: str) -> NDArray[np.bool_]:
        """Which cells are empty or hold what the map declares missing."""
        return self._numbers(column)[1]

    def _numbers(self, column: str) -> tuple[Array, NDArray[np.bool_]]:
        cells = self.frame[column]
        if isinstance(cells.dtype, np.dtype) and cells.dtype.kind in "fiu":
            numbers = cells.to_numpy(dtype=np.float64)
            empty = np.isnan(numbers)
        else:
            cells = cells.astype("str") if cells.dtype.kind == "b" else cells  # True is no number
            numbers = pd.to_numeric(cells, errors="coerce").astype("float64").to_numpy()
            empty = (cells.isna() | cells.isin(self._missing)).to_numpy()
        declared = [value for value in self._missing if not isinstance(value, str)]
        return numbers, empty | np.isin(numbers, declared) if declared else empty

    def text(self, column: str | None, value: Any = None) -> pd.Series:
        if column is None:
            return pd.Series(str(value), index=self.frame.index, dtype="str")
        cells = self.frame[column]
        if cells.dtype.kind == "f" and ((known := cells.dropna()) == known.clip(-1e15, 1e15).round()).all():
            cells = cells.astype("Int64")  # of whole numbers some of which are missing
        return cells.astype("str").where(cells.notna(), "").str.strip()

    def coordinate(self, name: str, given: Column) -> Array:
        """SI values of a coordinate; a pressure altitude becomes the pressure of the standard atmosphere."""
        values = self.of(given.column, given.value)
        kind, (factor, _) = self.conversion(name, given.units, given.column)
        values = factor * values
        if kind == "angle":
            limit = {"latitude": 90.0, "longitude": 360.0}[name]
            self._reject_where(np.abs(values) > limit, values, name, f"degrees within ±{limit:g}")
        return standard_pressure(values) if (name, kind) == ("pressure", "length") else values

    def error(self, given: float | str) -> Array:
        """Standard deviations of a column, or one for all rows; what is 0 says nothing."""
        if not isinstance(given, str):
            return self.of(None, given)
        values = self.of(given)
        self._reject_where(values < 0, values, f"error {given!r}", "a standard deviation, not below 0")
        return values

    def pressure_error(self, given: Pressure) -> Array:
        """Pa, in the standard atmosphere of a pressure altitude to first order; NaN where none is known."""
        if given.error is None:
            return np.full(len(self.frame), np.nan)
        kind, (factor, _) = self.conversion("pressure", given.units, given.column)
        error = factor * self.error(given.error)
        if kind != "length":
            return error
        altitude = factor * self.of(given.column, given.value)
        return 0.5 * error * (standard_pressure(altitude - 1.0) - standard_pressure(altitude + 1.0))

    def conversion(self, quantity: str, units: str | None, column: str | None) -> tuple[str, tuple[float, float]]:
        """As :func:`genda.observations.units.conversion`, of the map's units or else those that the file gives the column.

        Raises:
            ValueError: for units that the quantity does not come in, or two that differ.
        """
        where = f"{self.path}: column {column!r}" if column else f"{self.path}: {quantity}"
        own = self.units.get(column or "")
        if units is None and own is None and quantity in ("latitude", "longitude"):
            units = "degrees"
        wanted = conversion(quantity, units or own, where)
        if units is not None and own is not None:
            wrong = False
            with suppress(ValueError):  # what nobody knows contradicts nothing
                wrong = conversion(quantity, own, where) != wanted
            if wrong:
                raise ValueError(f"{where}: found units {own!r} in the file, expected {units!r} as in the map")
        return wanted

    def _reject_where(self, wrong: NDArray[np.bool_], values: Array, name: str, expected: str) -> None:
        for row, value in zip(self.frame.index[wrong], values[wrong], strict=True):
            self.reject(row, f"found {name} {value:g}, expected {expected}")

    def reject(self, row: Any, problem: str) -> None:
        self.wrong.setdefault(int(row), problem)


def _count(units: str) -> tuple[pd.Timestamp, float] | None:
    """The start and the step in seconds of "seconds since 1970-01-01"; None for anything else."""
    match = _SINCE.fullmatch(units.strip())
    start = pd.to_datetime([match[2] if match and match[2] not in _NOW else ""], errors="coerce", utc=True)[0]
    return None if match is None or pd.isna(start) else (start, _SECONDS[match[1]])


def times(values: Cells, given: Column) -> NDArray[np.datetime64]:
    """Times of a block, UTC; none is a problem of the row, for nothing can be done with an observation of no time.

    Raises:
        ValueError: for units that are not "seconds since …".
    """
    cells = pd.Series(given.value, index=values.frame.index) if given.column is None else values.frame[given.column]
    units = given.units or values.units.get(given.column or "")
    if cells.dtype.kind == "M":
        found = pd.to_datetime(cells, utc=True)
    elif units is not None:
        own = values.units.get(given.column or "")
        count = _count(units)
        if count is None:
            expected = "expected for example 'seconds since 1970-01-01'"
            raise ValueError(f"{values.path}: time: found units {units!r}, {expected}")
        if own is not None and _count(own) not in (None, count):
            raise ValueError(f"{values.path}: time: found units {own!r} in the file, expected {units!r} as in the map")
        start, length = count
        seconds = pd.Series(values.of(given.column, given.value) * length, index=cells.index)
        near = seconds.abs() < _FURTHEST
        found = start + pd.to_timedelta(seconds.where(near), unit="s")
    else:
        # Without a format every cell is read as ISO 8601, never guessed: 03/04 is March to some.
        text = cells.astype("str").where(cells.notna())
        text = text.mask(text.isin(_NOW))
        if given.format is None:
            text = text.where(text.str.len() >= _SHORTEST_DATE)
        found = pd.to_datetime(text, format=given.format or "ISO8601", errors="coerce", utc=True)
    expected = given.format or units or "an ISO 8601 time, or its format in the map"
    # Nanoseconds hold no others, and turn them into times of our own.
    possible = found.between(_EARLIEST, _LATEST)
    for row in found.index[~possible.to_numpy()]:
        cell = "no time" if pd.isna(cells[row]) else f"time {str(cells[row])[:40]!r}"
        values.reject(row, f"found {cell}, expected {expected}")
    found = found.where(possible)
    return np.asarray(found.dt.tz_convert(None).to_numpy(dtype="datetime64[ns]"))
