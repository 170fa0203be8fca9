"""Whether observations are of another climate than a prior: the question that comes before a mapping between the two.

With d = (y − H c) / √(σ_c² + σ_o²), c the prior's climatology for the season and σ_c its standard deviation, observations of the
prior's own climate have d of mean 0 and variance 1. Weather is alike over a few thousand kilometres, so stations are no independent
draws: their d are averaged over boxes of 2,000 km first, and boxes count as independent. A channel is foreign whose mean over m
boxes is further from 0 than 6 / √m. What this is held against: at 22 times of the nature run with 300 sites no channel of the
embedded prior is beyond 3.2 / √m; over Europe alone (6 boxes, whose weather is not quite independent) none beyond 4.4 / √m; real
ascents around the globe have t300 at 17 / √m.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from genda.checkpoint import StateModel
from genda.observations.flags import Flag
from genda.sources import climatology, observe, point_operator
from genda.variables import channels as parse_channels

BOX_KM = 2000.0
STANDARD_ERRORS = 6.0
_KM_A_DEGREE = 111.2
_NAMED = 3
"""Channels that are named, the most foreign first."""


def foreign_climate(model: StateModel, table: pd.DataFrame, time: np.datetime64) -> str | None:
    """A sentence about the channels whose observations are of another climate than the model's; None where there are none.

    Args:
        model: the prior.
        table: from :func:`genda.usable_observations`, of which rows that pass count.
        time: analysis time.
    """
    rows = table[table["quality"] == Flag.PASS]
    if rows.empty:
        return None
    means = _box_means(model, rows, time).groupby("channel")["departure"].agg(["mean", "size"])
    significance = means["mean"].abs() * np.sqrt(means["size"])
    foreign = significance[significance > STANDARD_ERRORS].sort_values(ascending=False).index
    if foreign.empty:
        return None
    named = ", ".join(f"{name} {means['mean'][name]:+.1f}" for name in foreign[:_NAMED])
    more = f" and {len(foreign) - _NAMED} more channels" if len(foreign) > _NAMED else ""
    return f"the observations are not of the model's climate: on average they depart from it by {named} standard deviations{more}"


def _box_means(model: StateModel, rows: pd.DataFrame, time: np.datetime64) -> pd.DataFrame:
    """Mean departure in standard deviations, one row for each channel and box."""
    expected = observe(model, climatology(model, time), rows).numpy()
    _, spread = point_operator(model, rows)
    latitude = rows["latitude"].to_numpy()
    height = BOX_KM / _KM_A_DEGREE
    band = np.floor((latitude + 90.0) / height)
    around = np.maximum(1.0, np.round(360.0 * np.cos(np.deg2rad((band + 0.5) * height - 90.0)) / height))
    boxes = pd.DataFrame(
        {
            "departure": (rows["observation"].to_numpy() - expected) / np.hypot(spread, rows["obs_error"].to_numpy()),
            "channel": _nearest_channels(model, rows),
            "band": band,
            "column": np.floor(rows["longitude"].to_numpy() / 360.0 * around),
        }
    )
    return boxes.groupby(["channel", "band", "column"])[["departure"]].mean().reset_index()


def _nearest_channels(model: StateModel, rows: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """The model's channel of each row's variable, aloft the one nearest in log pressure."""
    names = np.empty(len(rows), dtype=object)
    own = parse_channels(model.channels)
    for variable in rows["variable"].unique():
        at = np.flatnonzero(rows["variable"] == variable)
        levels = [channel for channel in own if channel.field.id == variable]
        nearest = np.zeros(len(at), dtype=np.intp)
        if levels[0].pressure is not None:
            log_levels = np.log([channel.pressure for channel in levels if channel.pressure is not None])
            log_p = np.log(rows["pressure"].to_numpy()[at])
            nearest = np.abs(log_p[:, None] - log_levels).argmin(axis=1)
        names[at] = np.array([channel.id for channel in levels], dtype=object)[nearest]
    return names
