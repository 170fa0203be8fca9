"""Training data: which dates, normalised anomalies by index, static maps, and the order in which samples are seen.

Small sets are held in memory as anomalies; larger ones are read by index, one batch ahead of the network. The order is a
function of (seed, position) alone, so that a resumed run goes on where the killed one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.diffusion.noise import derived_seed
from genda.files import Times, open_gridded
from genda.grid import LatLonGrid
from genda.latent_model import read_normalisation
from genda.state import Normalisation, State, read_state, season
from genda.train.config import DataConfig
from genda.train.frames import frame_reader

GEOMETRY = ("sin_latitude", "cos_longitude", "sin_longitude")
"""Static maps computed from the grid; every other name is read from the data set."""


class Fields(Protocol):
    """Normalised anomalies by index."""

    times: Times

    def __getitem__(self, index: NDArray[np.int64]) -> Tensor:
        """Shape (len(index), channel, lat, lon), float32."""
        ...


class InMemory:
    """Anomalies of a whole state, float32 or float16 (half the memory, rounding of 5e-4 of a value)."""

    def __init__(self, state: State, normalisation: Normalisation, dtype: torch.dtype = torch.float32) -> None:
        self.times = state.times
        self.values = state.values if dtype == state.values.dtype else torch.empty_like(state.values, dtype=dtype)
        for start in range(0, len(self.times), 256):  # in place where the type allows: the state is not needed again
            part = slice(start, start + 256)
            self.values[part] = normalisation.normalise(state.values[part], state.times[part]).to(dtype)

    def __getitem__(self, index: NDArray[np.int64]) -> Tensor:
        return self.values[torch.from_numpy(np.asarray(index))].float()


class OnDisk:
    """Anomalies read from the files when asked for, see :mod:`genda.train.frames`."""

    def __init__(self, path: Path, channels: Sequence[str], times: Times, normalisation: Normalisation) -> None:
        self.times, self._normalisation = times, normalisation
        self._read = frame_reader(path, channels)

    def __getitem__(self, index: NDArray[np.int64]) -> Tensor:
        wanted, back = np.unique(self.times[index], return_inverse=True)
        return self._normalisation.normalise(self._read(wanted), wanted)[torch.from_numpy(back)]


def training_fields(
    config: DataConfig, saved: Mapping[str, Tensor] | None
) -> tuple[Fields, Tensor | None, Normalisation, LatLonGrid]:
    """Training data by index, and what statistics are fitted to.

    Args:
        config: where states come from.
        saved: tensors of a checkpoint to go on from, whose climatology is kept.

    Returns:
        the data, anomalies to fit statistics to (None where those of a checkpoint are kept and nothing is in memory),
        the normalisation and the grid.
    """
    names, path, on_disk = config.names, config.path, config.storage == "disk"
    times = select_times(path, config.train)
    fit_times = select_times(path, config.train, config.fit_samples) if on_disk else times
    fitting = None if on_disk and saved is not None else read_state(path, names, fit_times)
    grid = fitting.grid if fitting is not None else read_state(path, names, times[:1]).grid
    normalisation = _normalisation(config, fitting, saved)
    if on_disk:
        anomalies = None if fitting is None else normalisation.normalise(fitting.values, fitting.times)
        return OnDisk(path, names, times, normalisation), anomalies, normalisation, grid
    assert fitting is not None
    train = InMemory(fitting, normalisation, getattr(torch, config.storage))
    return train, train.values, normalisation, grid


def _normalisation(config: DataConfig, fitting: State | None, saved: Mapping[str, Tensor] | None) -> Normalisation:
    if saved is not None:
        return Normalisation(saved["normalisation.mean"], saved["normalisation.std"])
    if config.normalisation is not None:
        return read_normalisation(config.normalisation, config.names)
    assert fitting is not None
    return Normalisation.fit(fitting, config.harmonics)


def select_times(path: Path, which: str | tuple[str, str], limit: int | None = None) -> Times:
    """Times of a split or of a range of dates.

    Args:
        path: the data set. Frames whose coordinate ``written`` is 0 are left out: a nature run may still be going on.
        which: a value of the coordinate ``split``, or (first, last) dates, both included.
        limit: at most this many, evenly spread.

    Raises:
        ValueError: where no time is selected.
    """
    files = open_gridded(path)
    times = files.times
    if isinstance(which, str):
        split = files.coordinate("split")
        if split is None:
            raise ValueError(f"{path}: found no coordinate 'split', expected one or a range of dates for {which!r}")
        chosen = split == which
    else:
        first, last = (np.datetime64(date) for date in which)
        chosen = (times >= first) & (times.astype(last.dtype) <= last)
    written = files.coordinate("written")
    if written is not None:
        chosen = chosen & (written == 1)
    files.close()
    selected: Times = times[chosen]
    if not selected.size:
        raise ValueError(f"{path}: found no finished times for {which!r}, expected at least one")
    if limit is not None and selected.size > limit:
        selected = selected[np.linspace(0, selected.size - 1, limit).round().astype(int)]
    return selected


def static_maps(path: Path, names: Sequence[str], grid: LatLonGrid) -> Tensor | None:
    """Maps that never change, each with area mean 0 and standard deviation 1, shape (name, lat, lon); None for no names.

    Raises:
        ValueError: where the data set lacks one or holds it on another grid.
    """
    if not names:
        return None
    lat, lon = np.meshgrid(np.radians(grid.latitude), np.radians(grid.longitude), indexing="ij")
    computed = dict(zip(GEOMETRY, (np.sin(lat), np.cos(lon), np.sin(lon)), strict=True))
    maps = []
    files = open_gridded(path)
    for name in names:
        if name in computed:
            maps.append(computed[name])
            continue
        array = next((part[name] for part in files.parts if name in part.data_vars), None)
        if array is None:
            known = ", ".join((*GEOMETRY, *map(str, files.static.data_vars)))
            raise ValueError(f"{path}: static map {name!r} not found, expected one of {known}")
        array = array.isel(time=0) if "time" in array.dims else array
        found, rows, columns = LatLonGrid.from_coordinates(array["latitude"].values, array["longitude"].values)
        if found.shape != grid.shape:
            raise ValueError(f"{path}: {name}: found grid {found.shape}, expected {grid.shape}")
        maps.append(array.transpose("latitude", "longitude").values[rows][:, columns].astype(np.float64))
    files.close()
    weights = grid.area_weights[:, None]
    standardised = []
    for values in maps:
        centred = values - (weights * values).mean()
        standardised.append(centred / max(float(np.sqrt((weights * centred**2).mean())), 1e-12))
    return torch.from_numpy(np.stack(standardised)).float()


def sample_order(position: int, count: int, size: int, seed: int) -> NDArray[np.int64]:
    """Indices of samples ``position`` to ``position + count`` of an endless walk through shuffled epochs.

    Args:
        position: number of samples seen before.
        count: how many.
        size: samples in the data set.
        seed: of the shuffles; each epoch has its own.
    """
    parts = []
    while count:
        epoch, offset = divmod(position, size)
        order = np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(size)
        parts.append(order[offset : offset + count])
        position, count = position + parts[-1].size, count - parts[-1].size
    return np.concatenate(parts)


def condition_of(kind: str, times: Times) -> Tensor | None:
    """The condition vectors of these times, shape (time, k), or None for an unconditional network."""
    return season(times) if kind == "season" else None
