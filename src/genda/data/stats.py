r"""Means and standard deviations of a data set and of its changes in time, area-weighted, in one pass.

Mean and squared deviation M of all n values seen so far are joined with those of a block b of values by

    δ = mean_b - mean,    mean += δ n_b / (n + n_b),    M += M_b + δ² n n_b / (n + n_b),

which loses no digits to the size of geopotential (Chan, Golub and LeVeque 1983, Am. Stat. 37, 242).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genda.files import Times, open_gridded
from genda.state import read_times

READ_BYTES = 2**26
"""Size of what is read at a time."""


@dataclass
class Moments:
    """Running weighted mean and variance of channels."""

    count: float = 0.0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, values: Tensor, weights: Tensor) -> None:
        """Take in fields (..., channel, lat, lon); ``weights`` (lat, 1) of mean 1."""
        fields = values.double().reshape(-1, *values.shape[-3:])
        mean = (weights * fields).mean(dim=(0, 2, 3))
        squares = (weights * (fields - mean.view(-1, 1, 1)) ** 2).mean(dim=(0, 2, 3)) * len(fields)
        total, difference = self.count + len(fields), mean - self.mean
        self.squares = self.squares + squares + difference**2 * (self.count * len(fields) / total)
        self.mean = self.mean + difference * (len(fields) / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        return (torch.as_tensor(self.squares) / self.count).sqrt()


@dataclass(frozen=True)
class DataStatistics:
    """Per channel, in physical units.

    Attributes:
        channels: identifiers.
        times: how many were read.
        members: in each of them; None where there is no ensemble.
        mean, std: over area and time.
        interval: hours between the times of a difference.
        pairs: how many differences were taken, of every member.
        difference_mean, difference_std: of the later minus the earlier; NaN without pairs.
    """

    channels: tuple[str, ...]
    times: int
    members: int | None
    mean: Tensor
    std: Tensor
    interval: float
    pairs: int
    difference_mean: Tensor
    difference_std: Tensor


def data_statistics(
    location: str | Path,
    channels: Sequence[str] | None = None,
    times: Times | None = None,
    interval: np.timedelta64 | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataStatistics:
    """Read every time once.

    Args:
        location: as for :func:`genda.files.open_gridded`.
        channels: all that are there by default.
        times: ascending; all by default.
        interval: between the times of a difference; by default the most frequent step.
        progress: called with the number of times read and of all.

    Raises:
        ValueError: for data that cannot be read, or an interval at which no two times are.
    """
    files = open_gridded(location)
    times = files.times if times is None else times
    if not times.size:
        raise ValueError(f"{location}: found no times, expected some")
    steps = np.diff(times)
    if interval is None:
        found, counts = np.unique(steps, return_counts=True)
        interval = found[counts.argmax()] if steps.size else np.timedelta64(24, "h")
    elif not np.isin(times + interval, times).any():
        raise ValueError(f"interval: found no two times {interval} apart, expected some")
    state = read_times(files, channels, times[:1])
    weights = torch.as_tensor(state.grid.area_weights).view(-1, 1)
    values, differences = Moments(), Moments()
    earlier: dict[np.datetime64, Tensor] = {}
    step = max(1, READ_BYTES // (4 * state.values.numel()))
    for start in range(0, times.size, step):
        block = read_times(files, state.channels, times[start : start + step])
        for time, fields in zip(block.times, block.values, strict=True):
            values.add(fields, weights)
            before = earlier.get(time - interval)
            if before is not None:
                differences.add(fields.double() - before.double(), weights)
            earlier = {key: kept for key, kept in earlier.items() if key > time - interval} | {time: fields}
        if progress is not None:
            progress(min(start + step, times.size), times.size)
    files.close()
    nothing = torch.full_like(values.std, torch.nan)
    return DataStatistics(
        state.channels,
        int(times.size),
        state.values.shape[1] if state.values.ndim == 5 else None,
        torch.as_tensor(values.mean),
        values.std,
        float(interval / np.timedelta64(1, "h")),
        int(differences.count),
        torch.as_tensor(differences.mean) if differences.count else nothing,
        differences.std if differences.count else nothing,
    )
