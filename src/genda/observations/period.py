"""A span of time that is read, and a count of what lies outside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from genda.observations.conditions import end, utc


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
        first = pd.NaT if since is None else utc(since, name="since")
        last = pd.NaT if until is None else end(until, name="until")
        return Period(first.to_datetime64(), last.to_datetime64())

    def within(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows inside; the others are counted."""
        times = table["time"].to_numpy()
        outside = (times < self.first) | (times > self.last)  # nothing is before or after NaT
        self.left_out += int(outside.sum())
        return table[~outside] if outside.any() else table
