"""Where a twin experiment's states come from: a nature run, or the shipped sample case with its file of errors.

Both hold, in physical units, the truth, the background of two leads and an ensemble about the shorter one at dates of a split, and
errors of training backgrounds, from which background statistics are fitted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from genda.assets import SAMPLE_CASE, SAMPLE_ERRORS
from genda.forecast.climate import open_backgrounds, open_ensembles, open_nature_run, with_truth
from genda.forecast.errors import members_at, open_errors
from genda.forecast.sample_case import open_sample_case
from genda.forecast.store import Run, open_run
from genda.state import State, from_dataset

Times = NDArray[np.datetime64]


class Archive(Protocol):
    """States of an experiment, channels and grid as stored."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Of every state, in order."""
        ...

    @property
    def members(self) -> int:
        """Size of the ensembles."""
        ...

    def times(self, ensemble: bool) -> Times:
        """Dates with truth and backgrounds, and an ensemble if asked."""
        ...

    def truth(self, time: np.datetime64) -> State: ...

    def background(self, time: np.datetime64, lead: int) -> State: ...

    def ensemble(self, time: np.datetime64) -> Tensor:
        """Members about the background of the shorter lead, shape (member, channel, lat, lon)."""
        ...

    @property
    def run(self) -> Run | None:
        """The nature run whose model can go on from these dates, where there is one."""
        ...

    @property
    def training_pairs(self) -> int:
        """How many training backgrounds there are."""
        ...

    def errors(self, lead: int, count: int) -> Tensor:
        """Errors of training backgrounds, evenly chosen, shape (pair, channel, lat, lon)."""
        ...


@lru_cache(maxsize=8)
def open_archive(path: Path | None, split: str) -> Archive:
    """A nature run, or the shipped sample case where there is no path.

    Raises:
        FileNotFoundError: where there is nothing at ``path``.
        ValueError: for a split the sample case does not hold.
    """
    if path is not None:
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: found no nature run, expected a store that genda nature-run has made")
        return NatureArchive(path, split)
    if split != "test":
        raise ValueError(f"split: found {split!r} without a nature run, expected 'test', all the sample case holds")
    return SampleArchive()


def fingerprint(archive: Archive, lead: int) -> str:
    """Twelve hexadecimal digits of the errors that statistics are fitted to: another run, or one that has gone on, has others."""
    digest = hashlib.blake2b(str(archive.training_pairs).encode(), digest_size=6)
    digest.update(archive.errors(lead, 2).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class NatureArchive:
    """A nature run's store."""

    path: Path
    split: str

    @cached_property
    def _truth(self) -> xr.Dataset:
        return open_nature_run(self.path)

    @cached_property
    def _background(self) -> xr.Dataset:
        return open_backgrounds(self.path, self.split)

    @cached_property
    def _ensemble(self) -> xr.Dataset:
        return open_ensembles(self.path, self.split)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        return from_dataset(self._truth.isel(time=[0])).channels

    @property
    def members(self) -> int:
        return int(self._ensemble.sizes["member"])

    def times(self, ensemble: bool) -> Times:
        found = np.intersect1d(self._truth.time.values, self._background.time.values)
        return np.intersect1d(found, self._ensemble.time.values) if ensemble else found

    def truth(self, time: np.datetime64) -> State:
        return from_dataset(self._truth.sel(time=[time]))

    def background(self, time: np.datetime64, lead: int) -> State:
        return from_dataset(self._background.sel(lead=lead, drop=True).sel(time=[time]))

    def ensemble(self, time: np.datetime64) -> Tensor:
        return members_at(self._ensemble, time)

    @cached_property
    def run(self) -> Run:
        return open_run(self.path)

    @cached_property
    def _training(self) -> tuple[xr.Dataset, xr.Dataset]:
        return with_truth(self.path, open_backgrounds(self.path, "train"))

    @property
    def training_pairs(self) -> int:
        return int(self._training[1].sizes["time"])

    def errors(self, lead: int, count: int) -> Tensor:
        chosen = _evenly(self.training_pairs, count)
        truth, background = (dataset.isel(time=chosen) for dataset in self._training)
        return from_dataset(background.sel(lead=lead, drop=True)).values - from_dataset(truth).values


@dataclass(frozen=True)
class SampleArchive:
    """The shipped sample case and the shipped errors of the same nature run."""

    case: Path = SAMPLE_CASE
    statistics: Path = SAMPLE_ERRORS

    @cached_property
    def _case(self) -> tuple[State, xr.Dataset]:
        case = open_sample_case(self.case)
        return from_dataset(case.truth), case.background

    @property
    def channels(self) -> tuple[str, ...]:
        return self._case[0].channels

    @property
    def members(self) -> int:
        return open_errors(self.statistics).dataset.sizes["member"]

    def times(self, ensemble: bool) -> Times:
        found = self._case[0].times
        return np.intersect1d(found, open_errors(self.statistics).ensemble_times) if ensemble else found

    def truth(self, time: np.datetime64) -> State:
        truth = self._case[0]
        i = int(np.flatnonzero(truth.times == time)[0])
        return State(truth.values[i : i + 1], truth.channels, truth.grid, truth.times[i : i + 1])

    def background(self, time: np.datetime64, lead: int) -> State:
        return from_dataset(self._case[1].sel(lead=lead, drop=True).sel(time=[time]))

    def ensemble(self, time: np.datetime64) -> Tensor:
        leads = self._case[1].lead.values
        return self.background(time, int(leads.min())).values + open_errors(self.statistics).ensemble(time)

    @property
    def run(self) -> None:
        return None

    @property
    def training_pairs(self) -> int:
        return open_errors(self.statistics).dataset.sizes["pair"]

    def errors(self, lead: int, count: int) -> Tensor:
        errors = open_errors(self.statistics).errors(lead)
        return errors[_evenly(len(errors), count)]


def _evenly(found: int, count: int) -> NDArray[np.intp]:
    return np.linspace(0, found - 1, count).round().astype(np.intp)
