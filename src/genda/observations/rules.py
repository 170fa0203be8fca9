"""Deny lists and lists of what is only to be monitored: rules that name observations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from genda.observations.flags import Flag
from genda.observations.quality import set_flag


class Rule(BaseModel):
    """Observations that meet every condition given; at least one must be.

    Attributes:
        station, source, variable: one of these.
        above, below: pressures in hPa; above 100 means pressures of 100 hPa and less.
        since, until: times, both included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    station: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    variable: tuple[str, ...] = ()
    above: float | None = None
    below: float | None = None
    since: datetime | date | None = None
    until: datetime | date | None = None

    def matches(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows meet it, (row,).

        Raises:
            ValueError: for a rule without conditions, which would match everything.
        """
        if not self.model_fields_set:
            raise ValueError(
                "rule: found no condition, expected at least one of station, source, variable, pressure, time"
            )
        rows = np.ones(len(table), dtype=bool)
        for column in ("station", "source", "variable"):
            if getattr(self, column):
                rows &= table[column].isin(getattr(self, column)).to_numpy()
        pressure = table["pressure"].to_numpy()
        with np.errstate(invalid="ignore"):
            if self.above is not None:
                rows &= pressure <= 100.0 * self.above
            if self.below is not None:
                rows &= pressure >= 100.0 * self.below
        if self.since is not None:
            rows &= (table["time"] >= _naive(self.since)).to_numpy()
        if self.until is not None:
            rows &= (table["time"] <= _naive(self.until)).to_numpy()
        return rows


def _naive(time: Any) -> pd.Timestamp:
    stamp = pd.Timestamp(time)
    return stamp if stamp.tzinfo is None else stamp.tz_convert(None)


def check_denied(table: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """``DENIED`` where a rule matches."""
    return _marked(table, rules, Flag.DENIED)


def mark_passive(table: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """``PASSIVE`` where a rule matches: compared with background and analysis, never assimilated.

    Put it last: what passed every check till then is what is worth comparing.
    """
    return _marked(table, rules, Flag.PASSIVE)


def _marked(table: pd.DataFrame, rules: Sequence[Rule], flag: Flag) -> pd.DataFrame:
    rows = np.zeros(len(table), dtype=bool)
    for rule in rules:
        rows |= rule.matches(table)
    return set_flag(table, rows, flag)
