"""What climate a nature run has, and how large its backgrounds' errors are.

Means over time are taken grid point by grid point, areas weighted by the grid's quadrature. The *transient standard
deviation* of a channel is the square root of the area mean of its variance in time about its own annual cycle, here
the mean of the calendar month (a year of data gives twelve maps); it is the yardstick observation errors are given in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS, FIELDS, STANDARD_GRAVITY, Channel, channel

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClimateSummary:
    """Figures of one split, SI units.

    Attributes:
        frames: number of frames used.
        t2m: global mean, K.
        msl: global mean, Pa.
        jets: largest zonal-mean eastward wind by level in hPa, m s⁻¹.
        z500_std: transient standard deviation of the 500 hPa height at 30–70 N, m.
        mean: global mean of each channel.
        transient_std: of each channel.
        background_rmse: lead in hours to RMSE of each channel; empty without backgrounds.
        lead_correlation: correlation between the errors of the two leads, of each channel; empty without backgrounds.
        pairs: number of background dates used.
    """

    frames: int
    t2m: float
    msl: float
    jets: dict[int, float]
    z500_std: float
    mean: dict[str, float]
    transient_std: dict[str, float]
    background_rmse: dict[int, dict[str, float]]
    lead_correlation: dict[str, float]
    pairs: int

    def report(self) -> str:
        """The figures as Markdown."""
        jets = ", ".join(f"{speed:.1f} m/s at {level} hPa" for level, speed in sorted(self.jets.items()))
        lines = [
            f"{self.frames} frames, {self.pairs} background dates",
            f"global mean t2m {self.t2m:.2f} K, msl {self.msl / 100:.2f} hPa",
            f"largest zonal-mean eastward wind: {jets}",
            f"z500 transient standard deviation at 30-70 N: {self.z500_std:.1f} m",
            "",
            self.table(),
        ]
        return "\n".join(lines)

    def table(self, channels: Sequence[str] = EMBEDDED_CHANNELS) -> str:
        """A Markdown table, one row a channel."""
        leads = sorted(self.background_rmse)
        head = ["channel", "mean", "transient std", *(f"RMSE {lead} h" for lead in leads)]
        head += ["correlation of the leads' errors"] if leads else []
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for name in channels:
            row = [self.mean[name], self.transient_std[name], *(self.background_rmse[lead][name] for lead in leads)]
            row += [self.lead_correlation[name]] if leads else []
            lines.append(f"| {name} | " + " | ".join(f"{value:.4g}" for value in row) + " |")
        return "\n".join(lines)


class NoFramesError(ValueError):
    """A nature run holds no finished frames of what was asked for."""


def open_nature_run(path: Path, split: str | None = None) -> xr.Dataset:
    """The finished frames of a nature run, of one split if given, opened lazily.

    Raises:
        FileNotFoundError: where there is no store.
        ValueError: where no frame of that split is finished.
    """
    return _finished(path, None, split)


def open_backgrounds(path: Path, split: str | None = None) -> xr.Dataset:
    """The finished background dates of a nature run, as :func:`open_nature_run`."""
    return _finished(path, "background", split)


def open_ensembles(path: Path, split: str | None = None) -> xr.Dataset:
    """The finished ensemble dates of a nature run, as :func:`open_nature_run`."""
    return _finished(path, "ensemble", split)


def with_truth(path: Path, background: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The truth at the dates of backgrounds, and the backgrounds whose truth is finished."""
    truth = open_nature_run(path)
    background = background.isel(time=np.isin(background.time.values, truth.time.values))
    return truth.sel(time=background.time.values), background


def climate_summary(path: Path, split: str = "train", stride: int = 1) -> ClimateSummary:
    """Climate of a split and, where they exist, the errors of its backgrounds.

    Args:
        path: the store.
        split: "train", "validation" or "test".
        stride: use every n-th frame.

    Raises:
        FileNotFoundError, ValueError: as :func:`open_nature_run`.
    """
    truth = open_nature_run(path, split).isel(time=slice(None, None, stride))
    grid, _, _ = LatLonGrid.from_coordinates(truth.latitude.values, truth.longitude.values)
    area = grid.area_weights / grid.area_weights.sum()
    month = truth.time.dt.month.values
    mean, std, jets, z500_std = {}, {}, {}, float("nan")
    for item, values in each_channel(truth):
        variance = transient_variance(values, month).mean(axis=-1)
        zonal = values.mean(axis=(0, 2), dtype=np.float64)
        mean[item.id], std[item.id] = float(area @ zonal), float(np.sqrt(area @ variance))
        if item.field.id == "u" and item.level_hpa is not None:
            jets[item.level_hpa] = float(zonal.max())
        if item.id == "z500":
            lat = np.asarray(grid.latitude)
            band = area * ((lat >= 30.0) & (lat <= 70.0))
            z500_std = float(np.sqrt(band @ variance / band.sum())) / STANDARD_GRAVITY
    rmse, correlation, pairs = _background_errors(path, split, area)
    return ClimateSummary(
        frames=month.size,
        t2m=mean["t2m"],
        msl=mean["msl"],
        jets=jets,
        z500_std=z500_std,
        mean=mean,
        transient_std=std,
        background_rmse=rmse,
        lead_correlation=correlation,
        pairs=pairs,
    )


def channel_values(dataset: xr.Dataset, name: str) -> Array:
    """One channel as float64, dimensions as stored without ``level``."""
    parsed = channel(name)
    array = dataset[parsed.field.name]
    if parsed.level_hpa is not None:
        array = array.sel(level=parsed.level_hpa)
    return np.asarray(array.values, dtype=np.float64)


def each_channel(dataset: xr.Dataset) -> Iterator[tuple[Channel, NDArray[np.float32]]]:
    """The channels of :data:`~genda.variables.EMBEDDED_CHANNELS` and their values, each field read once.

    Dimensions are those stored without ``level``.
    """
    for field in FIELDS:
        array = dataset[field.name].load()
        if not field.on_levels:
            yield Channel(field, None), array.values
            continue
        for level in EMBEDDED_LEVELS:
            yield Channel(field, level), array.sel(level=level).values


def transient_variance(values: NDArray[np.floating[Any]], month: NDArray[np.int64]) -> Array:
    """Variance in time about the mean of the calendar month at each point; time is the first dimension."""
    total = np.zeros(values.shape[1:])
    for m in np.unique(month):
        part = values[month == m].astype(np.float64)
        total += ((part - part.mean(axis=0)) ** 2).sum(axis=0)
    return np.asarray(total / month.size)


def _finished(path: Path, group: str | None, split: str | None) -> xr.Dataset:
    import xarray as xr

    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such nature run")
    try:
        dataset: xr.Dataset = xr.open_zarr(path, group=group, chunks=None)
    except (FileNotFoundError, KeyError):
        raise NoFramesError(f"{path}: found no {group or 'truth'}, expected a nature run that has made one") from None
    missing = [name for name in ("written", "split") if name not in dataset.variables]
    if missing:
        raise ValueError(f"{path}: {group or 'truth'}: found no {', '.join(missing)}, expected it along time")
    keep = dataset.written.values == 1
    if split is not None:
        keep &= dataset.split.values == split
    if not keep.any():
        raise NoFramesError(f"{path}: found no finished {group or 'truth'} frames of split {split!r}, expected some")
    return dataset.isel(time=np.flatnonzero(keep))


def _background_errors(
    path: Path, split: str, area: Array
) -> tuple[dict[int, dict[str, float]], dict[str, float], int]:
    """RMSE by lead and channel, correlation of the leads' errors, and the number of dates."""
    try:
        background = open_backgrounds(path, split)
    except (FileNotFoundError, ValueError, KeyError):
        return {}, {}, 0
    truth, background = with_truth(path, background)
    leads = [int(lead) for lead in background.lead.values]
    rmse: dict[int, dict[str, float]] = {lead: {} for lead in leads}
    correlation = {}
    for (item, forecast), (_, true) in zip(each_channel(background), each_channel(truth), strict=True):
        name, error = item.id, forecast.astype(np.float64) - true[:, None]
        weighted = error * area[:, None] / error.shape[-1]
        moments = np.einsum("nalm,nblm->ab", weighted, error) / error.shape[0]
        for i, lead in enumerate(leads):
            rmse[lead][name] = float(np.sqrt(moments[i, i]))
        correlation[name] = float(moments[0, -1] / np.sqrt(moments[0, 0] * moments[-1, -1]))
    return rmse, correlation, background.time.size
