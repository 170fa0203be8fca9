"""The shipped case: test dates of the nature run with truth and two backgrounds, for demo, tests and quick benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from genda.assets import SAMPLE_CASE
from genda.forecast.climate import NoFramesError, open_backgrounds, open_nature_run
from genda.forecast.sample_case import open_sample_case
from genda.state import State, from_dataset


@dataclass(frozen=True)
class Sample:
    """Dates of one split of the nature run.

    Attributes:
        truth: shape (time, channel, lat, lon).
        backgrounds: lead in hours as played (24, 48) to states of the same shape; empty where a store has none.
    """

    truth: State
    backgrounds: dict[int, State]


def read_sample(
    path: str | Path | None = None,
    *,
    split: str = "test",
    dates: int | None = None,
    channels: Sequence[str] | None = None,
) -> Sample:
    """Read the shipped case, or evenly spaced dates of a split of a nature run.

    Args:
        path: a sample-case file or a nature-run store; the shipped case when None.
        split: "test" or "validation"; a sample case holds test dates only.
        dates: how many; all of a sample case, 24 of a nature run when None.
        channels: all of the embedded ones when None.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: for a split or number of dates that the data do not hold.
    """
    path = Path(path or SAMPLE_CASE)
    background: xr.Dataset | None
    if path.is_file():
        if split != "test":
            raise ValueError(f"{path}: holds test dates only, expected a nature run for split {split!r}")
        case = open_sample_case(path)
        truth, background = case.truth, case.background
    else:
        truth = open_nature_run(path, split)
        background = None
        if (path / "background").exists():
            with suppress(NoFramesError):  # none of this split yet: truth alone
                background = open_backgrounds(path, split)
        if background is not None:
            truth = truth.sel(time=background["time"])
    wanted = dates or (truth.sizes["time"] if path.is_file() else 24)
    if wanted > truth.sizes["time"]:
        raise ValueError(f"{path}: found {truth.sizes['time']} dates of split {split!r}, expected at least {wanted}")
    index = np.linspace(0, truth.sizes["time"] - 1, wanted).round().astype(int)
    state = from_dataset(truth.isel(time=index), channels)
    if background is None:
        return Sample(state, {})
    leads = {
        int(lead): from_dataset(background.sel(lead=lead, drop=True).sel(time=state.times), channels)
        for lead in background["lead"].values
    }
    return Sample(state, leads)
