"""What climate a nature run has, and how large its backgrounds' errors are.

Means over time are taken grid point by grid point, areas weighted by the grid's quadrature. The *transient standard
deviation* of a channel is the square root of the area mean of its variance in time about its own annual cycle, here
the mean of the calendar month (a year of data gives twelve maps); it is the yardstick observation errors are given in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_CHANNELS, STANDARD_GRAVITY, channel

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

    def table(self, channels: Sequence[str] = EMBEDDED_CHANNELS) -> str:
        """A Markdown table, one row a channel."""
        leads = sorted(self.background_rmse)
        head = ["channel", "mean", "transient std", *(f"RMSE {lead} h" for lead in leads)]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for name in channels:
            row = [self.mean[name], self.transient_std[name], *(self.background_rmse[lead][name] for lead in leads)]
            lines.append(f"| {name} | " + " | ".join(f"{value:.4g}" for value in row) + " |")
        return "\n".join(lines)


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
    for name in EMBEDDED_CHANNELS:
        values = channel_values(truth, name)
        anomalies = values - monthly_mean(values, month)
        variance = anomalies.var(axis=0).mean(axis=-1)
        mean[name], std[name] = float(area @ values.mean(axis=(0, 2))), float(np.sqrt(area @ variance))
        parsed = channel(name)
        if parsed.field.id == "u" and parsed.level_hpa is not None:
            jets[parsed.level_hpa] = float(values.mean(axis=(0, 2)).max())
        if name == "z500":
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


def monthly_mean(values: Array, month: NDArray[np.int64]) -> Array:
    """The mean of each frame's calendar month at each point, shape as ``values`` (time first)."""
    out = np.empty_like(values)
    for m in np.unique(month):
        out[month == m] = values[month == m].mean(axis=0)
    return out


def _finished(path: Path, group: str | None, split: str | None) -> xr.Dataset:
    import xarray as xr

    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such nature run")
    dataset: xr.Dataset = xr.open_zarr(path, group=group, chunks=None)
    keep = dataset.written.values == 1
    if split is not None:
        keep &= dataset.split.values == split
    if not keep.any():
        raise ValueError(f"{path}: found no finished {group or 'truth'} frames of split {split!r}, expected some")
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
    for name in EMBEDDED_CHANNELS:
        error = channel_values(background, name) - channel_values(truth, name)[:, None]
        weighted = error * area[:, None] / error.shape[-1]
        moments = np.einsum("nalm,nblm->ab", weighted, error) / error.shape[0]
        for i, lead in enumerate(leads):
            rmse[lead][name] = float(np.sqrt(moments[i, i]))
        correlation[name] = float(moments[0, -1] / np.sqrt(moments[0, 0] * moments[-1, -1]))
    return rmse, correlation, background.time.size
