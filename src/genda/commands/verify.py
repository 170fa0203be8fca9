"""``genda verify``: an analysis against a truth or withheld observations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from genda import assimilation as library
from genda.commands.outcome import PAIR, Outcome, at, counted, iso
from genda.files import open_dataset
from genda.observable import observable
from genda.observations.errors import assign_errors
from genda.observations.flags import Flag
from genda.observations.table import read_table
from genda.sources import observe
from genda.state import State, read_state
from genda.verify import (
    BIAS,
    CRPS,
    DEPARTURE_CHI_SQUARE,
    RMSE,
    SPREAD_SKILL,
    ScoreTable,
    field_statistics,
    station_statistics,
)

WINDOW_HOURS = 3.0
"""Half-width of the window in which withheld observations are scored."""


def verify_files(analysis: Path, truth: Path | None, withheld: Path | None) -> Outcome:
    """Score an analysis file against a truth, against withheld observations, or both."""
    if truth is None and withheld is None:
        raise ValueError("nothing to verify against: expected --truth or --withheld")
    state = read_state(analysis)
    document: dict[str, Any] = {"analysis": str(analysis)}
    texts = []
    if truth is not None:
        reference = at(read_state(truth, state.channels), state.times[0], truth)
        if not library.same_grid(reference.grid, state.grid):
            raise ValueError(f"{truth}: found a grid of {reference.grid}, expected that of the analysis, {state.grid}")
        values, antithetic = _scored(state, analysis)
        rows = {
            "analysis": field_statistics(
                values,
                reference.values,
                times=state.times,
                channels=state.channels,
                grid=state.grid,
                antithetic=antithetic,
            )
        }
        table = ScoreTable(rows)
        document |= table.to_dict()
        texts.append(table.by_channel("analysis", (RMSE, CRPS, SPREAD_SKILL)))
    if withheld is not None:
        stations = _scorable(read_table(withheld), state)
        members = state.values[0] if state.values.ndim == 5 else state.values
        seen = observe(state, members, stations).numpy()
        stations = stations.assign(hx_a=seen.mean(axis=0))
        if len(seen) > 1:
            stations = assign_errors(stations).assign(hx_spread=seen.std(axis=0, ddof=1))
        table = ScoreTable({"analysis": station_statistics(stations)})
        there = int(stations["station"].nunique())
        document["withheld"] = table.to_dict() | {"stations": there, "observations": len(stations)}
        texts.append(f"{counted(there, 'station')}, {counted(len(stations), 'observation')}")
        texts.append(table.by_channel("analysis", (RMSE, BIAS, DEPARTURE_CHI_SQUARE)))
    return Outcome("\n".join(texts), document)


def _scored(state: State, analysis: Path) -> tuple[Tensor, bool]:
    """What of a file can be scored, and whether it is members in pairs from opposite noise.

    Of such members the whole pairs count, in their order; of fewer than two pairs the mean alone, for they tell no spread.
    """
    with open_dataset(analysis) as file:
        if PAIR not in file.coords or file[PAIR].dims != ("number",):
            return state.values, False
        pair = file[PAIR].values
    numbers, sizes = np.unique(pair, return_counts=True)
    whole = np.isin(pair, numbers[sizes == 2])
    if whole.sum() < 4:
        return state.values.mean(dim=1), False
    order = np.argsort(pair, kind="stable")
    return state.values[:, order[whole[order]].tolist()], True


def _scorable(table: pd.DataFrame, state: State) -> pd.DataFrame:
    """The rows of a withheld table that an analysis can be scored at.

    Raises:
        ValueError: if there are none.
    """
    checked = observable(state, table, state.times[0], WINDOW_HOURS)
    usable = checked[checked["quality"] == Flag.PASS]
    if usable.empty:
        raise ValueError(
            f"withheld observations: found none usable at {iso(state.times[0])} ± {WINDOW_HOURS:g} h, expected at least one"
        )
    return usable
