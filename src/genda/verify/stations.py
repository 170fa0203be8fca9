"""Scores at stations that the analysis never saw, from an observation table with background and analysis equivalents.

Departures y - H(x) are compared, so the observation's own error is part of every number and the ratio of analysis to
background RMSE understates the gain. The sample is the station: soundings of one station err together, stations
(nearly) apart, so standard errors leave one station out at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from genda.observations.flags import Flag
from genda.variables import FIELDS, channel, field
from genda.verify.scores import Array
from genda.verify.statistics import Statistics

USED_QUALITY = (int(Flag.PASS), int(Flag.PASSIVE))
"""Flags whose rows are scored: passed, and passive (monitored only)."""


@dataclass(frozen=True)
class LevelBin:
    """Pressures within [top, bottom) Pa, named after a standard level in hPa."""

    level_hpa: int
    bottom: float
    top: float


def level_bins(levels_hpa: Sequence[int] = (850, 700, 500, 300, 200), widest: float = 1.25) -> tuple[LevelBin, ...]:
    """Bins around levels: halfway to the neighbour in ln p, and never further than a factor ``widest``."""
    ordered = sorted({int(level) for level in levels_hpa}, reverse=True)
    bins = []
    for i, level in enumerate(ordered):
        below = np.sqrt(ordered[i - 1] * level) if i else np.inf
        above = np.sqrt(ordered[i + 1] * level) if i + 1 < len(ordered) else 0.0
        bins.append(LevelBin(level, 100 * min(below, level * widest), 100 * max(above, level / widest)))
    return tuple(bins)


def assign_channels(table: pd.DataFrame, bins: Sequence[LevelBin]) -> pd.Series:
    """The channel id ("t850", "t2m") that each row is scored under; missing where no bin holds its pressure."""
    label = pd.Series(pd.NA, index=table.index, dtype="string")
    fields = {name: field(name) for name in table["variable"].unique()}
    on_levels = table["variable"].map({name: f.on_levels for name, f in fields.items()}).astype(bool)
    short = table["variable"].map({name: f.id for name, f in fields.items()}).astype("string")
    label[~on_levels] = short[~on_levels]
    for level in bins:
        inside = on_levels & (table["pressure"] < level.bottom) & (table["pressure"] >= level.top)
        label[inside] = short[inside] + str(level.level_hpa)
    return label


def station_statistics(
    table: pd.DataFrame,
    equivalent: str = "hx_a",
    *,
    channels: Sequence[str] | None = None,
    bins: Sequence[LevelBin] | None = None,
    by: str = "station",
    quality: Collection[int] = USED_QUALITY,
) -> Statistics:
    """Departure statistics per station (or date) and channel.

    Args:
        table: observation table with the column ``equivalent``; only rows with a flag in ``quality`` and finite
            ``observation``, ``hx_b`` and ``hx_a`` (where present) count, so that both are scored on the same rows. With a
            column ``hx_spread``, the standard deviation of members there, the size of departures is held against what
            spread and ``obs_error`` lead to expect.
        equivalent: "hx_b", "hx_a" or any column of values in observation space.
        channels: channels to score, in order; default those that occur.
        bins: default :func:`level_bins`.
        by: column that names the sample, "station" or "time".

    Returns:
        squared_error, absolute_error and error (forecast minus observation), weighted by the number of observations; with
        ``hx_spread`` also departure_chi_square, error² / (spread² + obs_error²).

    Raises:
        ValueError: for a missing column, an unknown variable, or no row left.
    """
    missing = [c for c in ("variable", "pressure", "observation", "quality", by, equivalent) if c not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ValueError(f"observation table: columns {', '.join(missing)} are missing, found {found}")
    expected = ("hx_spread", "obs_error") if "hx_spread" in table.columns else ()
    needed = [c for c in ("observation", "hx_b", "hx_a", *expected, equivalent) if c in table.columns]
    keep = table["quality"].isin(list(quality)) & np.isfinite(table[needed].to_numpy(dtype=np.float64)).all(axis=1)
    rows = table[keep]
    label = assign_channels(rows, level_bins() if bins is None else bins)
    names = tuple(channels) if channels is not None else _ordered(label.dropna().unique())
    rows, label = rows[label.isin(names)], label[label.isin(names)]
    if rows.empty:
        raise ValueError("observation table: found no row with an accepted flag, a level bin and finite equivalents")
    error = (rows[equivalent] - rows["observation"]).to_numpy(dtype=np.float64)
    sample, samples = pd.factorize(rows[by], sort=True)
    column = pd.Categorical(label, categories=list(names)).codes
    flat = np.asarray(sample, dtype=np.int64) * len(names) + column
    shape = (len(samples), len(names))

    def total(values: Array) -> Array:
        sums: Array = np.bincount(flat, weights=values, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
        return sums

    count = total(np.ones_like(error))
    totals = {"squared_error": total(error**2), "absolute_error": total(np.abs(error)), "error": total(error)}
    if expected:
        variance = np.square(rows[list(expected)].to_numpy(dtype=np.float64)).sum(axis=1)
        totals["departure_chi_square"] = total(error**2 / variance)
    values = {name: np.divide(s, count, out=np.zeros(shape), where=count > 0) for name, s in totals.items()}
    return Statistics(tuple(samples), names, values, count)


def _ordered(names: Collection[str]) -> tuple[str, ...]:
    """In the order of the variable table, then from the ground up."""

    def key(name: str) -> tuple[int, int]:
        parsed = channel(name)
        return FIELDS.index(parsed.field), -(parsed.level_hpa or 0)

    return tuple(sorted((str(n) for n in names), key=key))
