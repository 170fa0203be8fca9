"""A span of time that is read, and a count of what lies outside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass
class Period:
    """First and last time to keep, both included; open where NaT.

    Attributes:
        first, last: UTC.
        left_out: rows outside, so far.
    """

    first: np.datetime64
    last: np.datetime64
    left_out: int = 0

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError(f"period: found {self}, expected the first time before the last")

    def __str__(self) -> str:
        first, last = ("…" if np.isnat(time) else str(time)[:16] for time in (self.first, self.last))
        return f"{first} to {last}"

    @staticmethod
    def of(since: str | None, until: str | None) -> Period:
        """From ISO dates; a day without an hour is meant whole.

        Raises:
            ValueError: for what is no date, or a first after the last.
        """
        last = _time("until", until)
        if until is not None and len(until.strip()) <= len("2001-01-01"):
            last = np.datetime64(pd.Period(until.strip()).end_time, "ns")
        return Period(_time("since", since), last)

    def within(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows inside; the others are counted."""
        times = table["time"].to_numpy()
        outside = (times < self.first) | (times > self.last)  # nothing is before or after NaT
        self.left_out += int(outside.sum())
        return table[~outside] if outside.any() else table


def _time(name: str, given: str | None) -> np.datetime64:
    if given is None:
        return np.datetime64("NaT", "ns")
    try:
        stamp = pd.Timestamp(given)
        if pd.isna(stamp):
            raise ValueError(given)
    except ValueError:
        raise ValueError(f"{name}: found {given!r}, expected an ISO date such as 2008-12-08T12") from None
    return np.datetime64(stamp.tz_convert(None) if stamp.tzinfo else stamp, "ns")
