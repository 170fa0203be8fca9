"""What the columns of somebody else's table mean: a small YAML file.

    source: mesonet                              # for the column of that name
    station: stid                                # the name of a column …
    time: {column: obs_time, format: "%Y%m%d%H%M"}   # … or more about it; numbers: {column: t, units: seconds since 1970-01-01}
    latitude: lat
    longitude: lon
    elevation: {column: elev, units: ft}         # optional
    pressure: {column: pres, units: hPa, error: 1}   # leave it out for surface stations; a length is a pressure altitude
    missing: [-9999, M]                          # besides empty cells, NA, N/A, NaN, null and None
    quantities:                                  # one column a quantity …
      temperature: {column: tair, units: degC, error: 0.5}
      wind_direction: {column: dd, units: degrees, error: 5}
      wind_speed: {column: ff, units: kt, error: ff_sigma}
    long:                                        # … or one row a value
      name: element
      value: value
      quantities: {TMP: {quantity: temperature, units: degC, error: 0.5}}

Quantities: those of :data:`genda.observations.places.QUANTITIES`, and height, each once. An ``error`` is a number or the name of
a column, in the units of the value; that of the pressure counts as far as humidity depends on it. A ``{value: …}`` in place of
a column is a constant. ``good: {column: flag, values: [V, S]}`` denies the values of a quantity where another column says
something else. ``encoding``, ``separator``, ``decimal`` and ``skip_rows`` (before the line of names) are for CSV. netCDF
variables may say their own units, which those of the map must not contradict.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from genda.documents import Strict, first_complaint, read_yaml
from genda.observations.places import QUANTITIES

REPORTED = (*QUANTITIES, "height")
BLANKS = r"\s+"


def _error(given: Any) -> Any:
    """A standard deviation, or the name of a column of them."""
    if isinstance(given, str) or (type(given) in (int, float) and 0 < given < math.inf):
        return given
    raise ValueError(f"found {given!r:.40}, expected a standard deviation above 0 or the name of a column")


Error = Annotated[float | str, PlainValidator(_error)]


class _Strict(Strict):
    model_config = ConfigDict(strict=True)


class Column(_Strict):
    """Where a coordinate comes from: a column, or one value for all rows."""

    column: str | None = None
    value: str | float | int | None = None
    units: str | None = None
    format: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Column:
        if (self.column is None) == (self.value is None):
            raise ValueError("expected either a column or a value")
        return self


class Pressure(Column):
    """As a coordinate, with its error (in the same units)."""

    error: Error | None = None


class Good(_Strict):
    """Values of a column of flags with which a value may be used."""

    column: str
    values: list[str | int]


class Reported(_Strict):
    """A reported quantity: its units, its error (in these units) and the flags that it needs."""

    column: str | None = None
    quantity: str | None = None
    units: str | None = None
    error: Error | None = None
    good: Good | None = None


class Long(_Strict):
    """Columns of a table with one row a value, and its quantities by the names it gives them."""

    name: str
    value: str
    error: str | None = None
    quantities: dict[str, Reported]


_BY_NAME = BeforeValidator(lambda given: {"column": given} if isinstance(given, str) else given)
Named = Annotated[Column, _BY_NAME]


class ColumnMap(_Strict):
    """See the module."""

    source: str
    station: Named
    time: Named
    latitude: Named
    longitude: Named
    elevation: Named | None = None
    pressure: Annotated[Pressure, _BY_NAME] | None = None
    missing: list[str | float | int] = Field(default_factory=list)
    quantities: dict[str, Reported] = Field(default_factory=dict)
    long: Long | None = None
    encoding: str = "utf-8-sig"
    separator: str = ","
    decimal: str = "."
    skip_rows: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ColumnMap:
        if bool(self.quantities) == (self.long is not None):
            raise ValueError("expected either quantities or long")
        if len(self.separator) != 1 and self.separator != BLANKS:
            raise ValueError(f"separator: found {self.separator!r}, expected one character, or '{BLANKS}' for blanks")
        if self.station.value is not None and not isinstance(self.station.value, str):
            found = f"found {self.station.value}, expected text: quote it, for YAML reads 03743 as 2019"
            raise ValueError(f"station: {found}")
        entries = {} if self.long is None else self.long.quantities
        by_name = {name: name for name in self.quantities} | {name: entry.quantity for name, entry in entries.items()}
        taken: dict[str, str] = {}
        for name, quantity in by_name.items():
            if quantity not in REPORTED:
                raise ValueError(f"quantity {quantity!r}: expected one of {', '.join(REPORTED)}")
            stored = "geopotential" if quantity == "height" else quantity
            if stored in taken:
                expected = f"expected {stored} once (a map of its own reads the other)"
                raise ValueError(f"quantities: found {taken[stored]!r} and {name!r}, {expected}")
            taken[stored] = name
        for name, reported in self.quantities.items():
            if reported.column is None:
                raise ValueError(f"quantity {name!r}: expected a column")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the map reads, each once."""
        places = (self.station, self.time, self.latitude, self.longitude, self.elevation, self.pressure)
        names = [place.column for place in places if place is not None]
        names.append(None if self.pressure is None or not isinstance(self.pressure.error, str) else self.pressure.error)
        entries = list(self.quantities.values()) if self.long is None else list(self.long.quantities.values())
        for entry in entries:
            names += [entry.column, entry.error if isinstance(entry.error, str) else None]
            names.append(None if entry.good is None else entry.good.column)
        if self.long is not None:
            names += [self.long.name, self.long.value, self.long.error]
        return tuple(dict.fromkeys(name for name in names if name is not None))


def read_column_map(path: str | os.PathLike[str]) -> ColumnMap:
    """Read a column map.

    Raises:
        ValueError: one line naming the file and the entry that is wrong.
        FileNotFoundError: where there is no such file.
    """
    return column_map(read_yaml(path, "a column map"), str(path))


def column_map(given: Mapping[str, Any], name: str = "column map") -> ColumnMap:
    """A column map from a mapping; raises as :func:`read_column_map`."""
    try:
        return ColumnMap.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"{name}: {first_complaint(error)}") from None


@cache
def shipped_maps() -> dict[str, ColumnMap]:
    """The maps of netCDF point files that come with the package, by name."""
    folder = files("genda").joinpath("assets/columns")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {
        name.removesuffix(".yaml"): column_map(yaml.safe_load(folder.joinpath(name).read_text("utf-8")), name)
        for name in names
    }
