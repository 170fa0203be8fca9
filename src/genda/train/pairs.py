"""Backgrounds and the truth at their dates: group ``background`` of a nature run's store, with a dimension ``lead``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genda.files import Times
from genda.forecast.climate import NoFramesError, open_backgrounds, open_nature_run, with_truth
from genda.grid import LatLonGrid
from genda.state import Normalisation, from_dataset
from genda.train.config import DataConfig


@dataclass(frozen=True)
class Pairs:
    """Normalised anomalies in half precision, whose rounding is far below any error.

    Attributes:
        truth: shape (time, channel, lat, lon).
        background: shape (time, lead, channel, lat, lon).
        leads: hours.
        times: valid times.
        grid: of both.
    """

    truth: Tensor
    background: Tensor
    leads: tuple[int, ...]
    times: Times
    grid: LatLonGrid


def read_pairs(
    config: DataConfig, split: str | tuple[str, str], normalisation: Normalisation, limit: int | None = None
) -> Pairs | None:
    """All pairs of a split, or ``limit`` of them evenly chosen; None where the data set has no backgrounds of it.

    Raises:
        ValueError: for a range of dates: splits of backgrounds are told by name.
    """
    if not isinstance(split, str):
        raise ValueError(
            f"{config.path}: found dates {split[0]} to {split[1]}, expected the name of a split for backgrounds"
        )
    try:
        truth, background = with_truth(config.path, open_backgrounds(config.path, split))
    except NoFramesError:
        return None
    if limit is not None and background.sizes["time"] > limit:
        chosen = np.linspace(0, background.sizes["time"] - 1, limit).round().astype(int)
        truth, background = truth.isel(time=chosen), background.isel(time=chosen)
    times = truth["time"].values.astype("datetime64[ns]")
    leads = tuple(int(lead) for lead in background["lead"].values)

    grid, _, _ = LatLonGrid.from_coordinates(truth["latitude"].values, truth["longitude"].values)
    size = normalisation.mean.shape[-2:]
    if any(found not in (1, points) for found, points in zip(size, grid.shape, strict=True)):
        raise ValueError(
            f"{config.path}: found a grid of {grid.shape}, expected that of the normalisation, {tuple(size)}"
        )

    def anomalies(dataset: object) -> Tensor:
        state = from_dataset(dataset, config.names)  # type: ignore[arg-type]
        return normalisation.normalise(state.values, state.times).half()

    members = [anomalies(background.sel(lead=lead, drop=True)) for lead in leads]
    return Pairs(anomalies(truth), torch.stack(members, dim=1), leads, times, grid)


def channel_weights(config: DataConfig, normalisation: Normalisation, grid: LatLonGrid) -> Tensor:
    """One over the mean squared error of training backgrounds by channel, shape (channel,).

    Raises:
        ValueError: where there are none.
    """
    pairs = read_pairs(config, config.train, normalisation)
    if pairs is None:
        raise ValueError(f"{config.path}: found no backgrounds of {config.train!r}, expected some to weigh channels by")
    return 1 / error_variance(pairs, torch.as_tensor(grid.area_weights).float()).mean(dim=0)


def error_variance(pairs: Pairs, area: Tensor) -> Tensor:
    """Mean square of background errors, (lead, channel); ``area`` weights of latitudes, (lat,)."""
    rows = [
        ((pairs.truth.float() - pairs.background[:, lead].float()) ** 2 * area.view(-1, 1)).mean(dim=(0, 2, 3))
        for lead in range(len(pairs.leads))
    ]
    return torch.stack(rows)


def truth_before(config: DataConfig, times: Times, normalisation: Normalisation) -> tuple[Tensor, float]:
    """Truths one step of the data set before the times given, NaN where there is none.

    Returns:
        normalised by the climatology of the later time, in half precision, shape (time, channel, lat, lon), and the step in s.
    """
    truth = open_nature_run(config.path)
    known = truth["time"].values.astype("datetime64[ns]")
    step = np.diff(known).min()
    before = times - step
    there = np.isin(before, known)
    state = from_dataset(truth.sel(time=before[there]), config.names)
    values = torch.full((len(times), *state.values.shape[1:]), torch.nan, dtype=torch.float16)
    values[torch.as_tensor(there)] = normalisation.normalise(state.values, times[there]).half()
    return values, float(step / np.timedelta64(1, "s"))
