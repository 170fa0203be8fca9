"""Deny lists and lists of what is only to be monitored: rules that name observations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import model_validator

from genda.documents import Strict
from genda.observations.conditions import End, Names, Positive, Start, Variables
from genda.observations.flags import Flag
from genda.observations.quality import set_flag


class Rule(Strict):
    """Observations that meet every condition given; at least one must be.

    Attributes:
        station, source, variable: one of these; variables by any of their names.
        above, below: pressures in hPa; above 100 means pressures of 100 hPa and less.
        since, until: times, both included; a bare date is the whole day.

    Raises:
        ValueError: for no condition at all, which would match everything, and for two that nothing meets.
    """

    station: Names = ()
    source: Names = ()
    variable: Variables = ()
    above: Positive | None = None
    below: Positive | None = None
    since: Start | None = None
    until: End | None = None

    @model_validator(mode="after")
    def _matches_some_but_not_all(self) -> Rule:
        if all(value in ((), None) for value in dict(self).values()):
            raise ValueError(f"found no condition, expected at least one of {', '.join(Rule.model_fields)}")
        if self.above is not None and self.below is not None and self.above < self.below:
            raise ValueError(
                f"found pressures above {self.above:g} and below {self.below:g} hPa, expected some that are both"
            )
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(f"found since {self.since} and until {self.until}, expected times in this order")
        return self

    def matches(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows meet it, (row,)."""
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
            rows &= (table["time"] >= self.since).to_numpy()
        if self.until is not None:
            rows &= (table["time"] <= self.until).to_numpy()
        return rows


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
