"""The shipped case: test dates of the nature run with truth, two backgrounds and climatology, for demo, tests and quick benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from genda.assets import SAMPLE_CASE
from genda.state import State, from_dataset, open_dataset


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
    path: str | Path | None = None, *, split: str = "test", dates: int | None = None, channels: Sequence[str] | None = None
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
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such sample case or nature run")
    with open_dataset(path) as dataset:
        if "split" in dataset.coords:
            usable = (dataset["split"].values.astype(str) == split) & (dataset["written"].values == 1)
            dataset = dataset.isel(time=np.flatnonzero(usable))
        elif split != "test":
            raise ValueError(f"{path}: holds test dates only, expected a nature run for split {split!r}")
        wanted = dates or (24 if "split" in dataset.coords else dataset.sizes["time"])
        if wanted > dataset.sizes["time"]:
            raise ValueError(f"{path}: found {dataset.sizes['time']} dates of split {split!r}, expected at least {wanted}")
        chosen = dataset.isel(time=np.linspace(0, dataset.sizes["time"] - 1, wanted).round().astype(int))
        truth = from_dataset(chosen, channels)
    return Sample(truth, _backgrounds(path, truth, channels))


def _backgrounds(path: Path, truth: State, channels: Sequence[str] | None) -> dict[int, State]:
    try:
        dataset = open_dataset(path, "background")
    except ValueError:
        return {}
    with dataset:
        held = np.isin(truth.times, dataset["time"].values)
        if not held.all():
            return {}
        chosen: xr.Dataset = dataset.sel(time=truth.times)
        return {
            int(lead): from_dataset(chosen.sel(lead=lead).drop_vars("lead"), channels) for lead in chosen["lead"].values
        }
