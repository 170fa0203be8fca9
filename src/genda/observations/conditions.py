"""What people write of observations in YAML: names, times, durations; refused where YAML has made something else of them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from genda.variables import field

_NANOSECOND = pd.Timedelta(1, "ns")


def names(given: Any) -> tuple[str, ...]:
    """One name or several.

    Raises:
        ValueError: for none at all, and for what YAML takes for a number, a truth value or a date where it is not quoted.
    """
    listed = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    if not listed:
        raise ValueError("found an empty list, expected at least one name")
    for name in listed:
        if not isinstance(name, str):
            raise ValueError(
                f"found {name!r:.40}, expected text: quote it, for YAML reads 03743 as 2019 and NO as false"
            )
    return listed


def utc(given: Any, *, name: str = "") -> pd.Timestamp:
    """A time as tables have them: UTC, without a zone. Text is ISO 8601; a bare date is its start.

    Raises:
        ValueError: for anything else, or a time that nanoseconds can't hold.
    """
    try:
        if isinstance(given, (bool, int, float)):
            raise ValueError
        stamp = pd.Timestamp(datetime.fromisoformat(given) if isinstance(given, str) else given)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{_of(name)}found {given!r:.40}, expected a time such as 2020-01-31T12:00") from None
    if pd.isna(stamp):
        raise ValueError(f"{_of(name)}found no time, expected one such as 2020-01-31T12:00")
    stamp = stamp if stamp.tzinfo is None else stamp.tz_convert(None)
    try:
        return stamp.as_unit("ns")
    except ValueError:
        raise ValueError(f"{_of(name)}found {given!r:.40}, expected a time from 1678 to 2261") from None


def end(given: Any, *, name: str = "") -> pd.Timestamp:
    """As :func:`utc`, but a bare date is its end."""
    stamp = utc(given, name=name)
    bare = len(given) <= len("2020-01-31") if isinstance(given, str) else type(given) is date
    return stamp + pd.Timedelta(1, "D") - _NANOSECOND if bare else stamp


def duration(given: Any, *, name: str = "") -> pd.Timedelta:
    """A duration of 0 or more, of text such as "6h" or an object that is one.

    Raises:
        ValueError: for anything else; a number has no unit.
    """
    try:
        if isinstance(given, (bool, int, float)):
            raise ValueError
        length = pd.Timedelta(given)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{_of(name)}found {given!r:.40}, expected a duration such as 6h") from None
    if not length >= pd.Timedelta(0):
        raise ValueError(f"{_of(name)}found {given!r:.40}, expected a duration of 0 or more")
    return length


def _of(name: str) -> str:
    return f"{name}: " if name else ""


Names = Annotated[tuple[str, ...], BeforeValidator(names)]
Variables = Annotated[Names, AfterValidator(lambda given: tuple(field(name).id for name in given))]
"""Identifiers of variables, whichever of their names was given."""
Start = Annotated[pd.Timestamp, PlainValidator(utc)]
End = Annotated[pd.Timestamp, PlainValidator(end)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
