"""From files of any kind to a training store: choose channels and times, regrid, split.

The store is laid out first, with all coordinates, and then filled block by block, a block being the frames of one file of every
variable; ``written`` is set last. Blocks are independent, so that they may be filled side by side, and a preparation that was
killed goes on with those that are missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.data.store import consolidate, coordinates_of, create_fields, levels_of
from genda.files import Gridded, Times, open_gridded
from genda.grid import LatLonGrid
from genda.regrid import Regridder, RegridMethod, regrid, regridder
from genda.state import State, read_times
from genda.variables import STATIC_FIELDS
from genda.variables import channels as parse_channels
from genda.workers import side_by_side

SHARD_BYTES = 2**26
"""Size of a file of the store before compression, at most; a frame where that is larger."""
READ_BYTES = 2**28
"""Size of what is read at a time."""


@dataclass(frozen=True)
class Preparation:
    """What is made of which data.

    Attributes:
        source: files as for :func:`genda.files.open_gridded`.
        out: the store.
        channels: identifiers.
        grid: to regrid to; None keeps the data's own.
        method: of regridding.
        times: valid times to keep.
        split: of each of them: train, validation, test or gap.
    """

    source: str
    out: Path
    channels: tuple[str, ...]
    grid: LatLonGrid | None
    method: RegridMethod
    times: Times
    split: NDArray[Any]

    def recipe(self, grid: LatLonGrid, members: int | None) -> dict[str, Any]:
        """What decides the store's values; a store of another recipe is refused."""
        return {
            "channels": list(self.channels),
            "grid": [list(grid.latitude), list(grid.longitude)],
            "method": self.method if self.grid is not None else "none",
            "source": self.source,
            "first_time": str(self.times[0]),
            "last_time": str(self.times[-1]),
            "frames": len(self.times),
            "members": members or 0,
        }


def prepare_store(
    what: Preparation,
    workers: int = 1,
    dask: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Make the store, or go on with one that was begun.

    Args:
        what: to do.
        workers, dask: see :func:`genda.workers.side_by_side`.
        progress: called with the number of finished blocks and of all.

    Returns:
        frames that were written now.

    Raises:
        ValueError: for data that cannot be used, or a store of another recipe; finished blocks are kept.
    """
    import xarray as xr
    import zarr

    files = open_gridded(what.source)
    first = read_times(files, what.channels, what.times[:1])
    members = first.values.shape[1] if first.values.ndim == 5 else None
    grid = what.grid or first.grid
    block = _frames_of_a_shard(what.channels, grid, members)
    apply = None if what.grid is None else regridder(first.grid, grid, what.method)
    if not what.out.exists():
        _create(what, files, grid, members, block, apply)
    files.close()
    stored: Any = zarr.open_group(what.out, mode="r", use_consolidated=False)
    for name, expected in what.recipe(grid, members).items():
        if stored.attrs.get(name) != expected:
            found = f"found {name} = {stored.attrs.get(name)!s:.100}"
            raise ValueError(f"{what.out}: {found}, expected {expected!s:.100}: another store, or the same options")
    with xr.open_zarr(what.out, chunks=None) as laid_out:
        for name, chosen in (("time", what.times), ("split", what.split)):
            if not np.array_equal(laid_out[name].values.astype(chosen.dtype), chosen):
                raise ValueError(f"{what.out}: found another {name} in it, expected another store, or the same options")
    written = np.asarray(stored["written"][:])
    starts = range(0, len(what.times), block)
    missing = [start for start in starts if not written[start : start + block].all()]
    done = len(starts) - len(missing)
    blocks = [(what, start, min(start + block, len(what.times))) for start in missing]
    _opened.cache_clear()  # the files may have changed since
    for _ in side_by_side(_write_block, blocks, workers, dask, what.out.absolute().parent):
        done += 1
        if progress is not None:
            progress(done, len(starts))
    return sum(stop - start for _, start, stop in blocks)


def split_times(times: Times, until: tuple[str, str] | None, gap: np.timedelta64) -> NDArray[np.str_]:
    """The split of each time: train, then validation, then test, with a gap at the start of the latter two.

    Times that are too few for that, where no dates are given, are all for training.

    Args:
        times: ascending.
        until: last days of training and of validation; without them the first 80 and the next 10 % of all times.
        gap: how long after the last training (validation) time nothing is used, so that splits do not share weather.

    Raises:
        ValueError: for dates in the wrong order, or that leave nothing to train on or to validate with.
    """
    if until is None:
        train, validation = (times[int(share * (len(times) - 1))] for share in (0.8, 0.9))
    else:
        train, validation = (
            np.datetime64(pd.Timestamp(day), "D") + np.timedelta64(24 * 3600 - 1, "s") for day in until
        )
    split = np.where(times <= train, "train", np.where(times <= validation, "validation", "test"))
    for end in (train, validation):
        before = times[times <= end]
        if before.size:
            split[(times > end) & (times <= before[-1] + gap)] = "gap"
    empty = [name for name in ("train", "validation") if not (split == name).any()]
    if empty and until is None:
        return np.full(len(times), "train")
    if empty and until is not None:
        first, last = (np.datetime_as_string(time, unit="m") for time in (times[0], times[-1]))
        options = (
            f"--train-until {until[0]}, --validation-until {until[1]} and --gap-days {gap / np.timedelta64(1, 'D'):g}"
        )
        raise ValueError(f"split: found {first} to {last} with no time for {empty[0]} by {options}, expected some")
    return np.asarray(split)


def _frames_of_a_shard(channels: Sequence[str], grid: LatLonGrid, members: int | None) -> int:
    frame = 4 * max(1, len(levels_of(channels))) * grid.shape[0] * grid.shape[1] * (members or 1)
    return max(1, min(256, SHARD_BYTES // frame))


def _create(
    what: Preparation,
    files: Gridded,
    grid: LatLonGrid,
    members: int | None,
    block: int,
    apply: Regridder | None,
) -> None:
    """Lay out the store with its coordinates and static maps; it appears whole or not at all."""
    import xarray as xr
    import zarr

    coordinates = {
        **coordinates_of(grid, levels_of(what.channels)),
        "time": ("time", what.times.astype("datetime64[ns]"), {"standard_name": "time"}),
        "split": ("time", what.split.astype(object), {"long_name": "train, validation, test or gap"}),
    }
    if members is not None:
        coordinates["number"] = ("number", np.arange(members, dtype=np.int32), {"standard_name": "realization"})
    attributes = {
        **what.recipe(grid, members),
        "Conventions": "CF-1.11",
        "title": "genda: fields for training",
    }
    partial = what.out.with_name(f".{what.out.name}.partial")
    try:
        xr.Dataset(_static_maps(files, grid, apply), coords=coordinates, attrs=attributes).to_zarr(
            partial,
            mode="w",
            zarr_format=3,
            consolidated=False,
            encoding={"time": {"units": "hours since 1970-01-01", "dtype": "int64"}},
        )
        group = zarr.open_group(partial, mode="a")
        sizes = [("time", len(what.times), 1), *([] if members is None else [("number", members, members)])]
        create_fields(group, what.channels, grid, sizes, block)
        group.attrs["coordinates"] = "split written"
        consolidate(partial)
        os.replace(partial, what.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _static_maps(files: Gridded, grid: LatLonGrid, apply: Regridder | None) -> dict[str, Any]:
    import torch

    maps = {}
    found, static = files.static, {field.name: field for field in STATIC_FIELDS}
    for name, array in found.data_vars.items():
        _, rows, columns = LatLonGrid.from_coordinates(array["latitude"].values, array["longitude"].values)
        values = torch.from_numpy(array.transpose("latitude", "longitude").values[rows][:, columns].astype(np.float64))
        moved = (values if apply is None else apply(values, False)).float().numpy()
        field = static[str(name)]
        maps[field.name] = (
            ("latitude", "longitude"),
            moved,
            {"units": field.units, "standard_name": field.standard_name},
        )
    return maps


def _write_block(job: tuple[Preparation, int, int]) -> None:
    """Read, regrid and write the frames of one file of every variable."""
    import zarr

    what, start, stop = job
    files, first = _opened(what.source, what.channels, what.times[0])
    apply = None if what.grid is None else _regridder(first.grid, what.grid, what.method)
    per_frame = 4 * first.values[0].numel()
    step = max(1, READ_BYTES // per_frame)
    states = []
    for begin in range(start, stop, step):
        state = read_times(files, what.channels, what.times[begin : min(begin + step, stop)])
        states.append(state if apply is None or what.grid is None else regrid(state, what.grid, apply))
    group: Any = zarr.open_group(what.out, mode="r+", use_consolidated=False)
    parsed, levels = parse_channels(what.channels), levels_of(what.channels)
    values = np.concatenate([state.values.numpy() for state in states])
    for field in dict.fromkeys(c.field for c in parsed):
        index = [i for i, c in enumerate(parsed) if c.field == field]
        if not field.on_levels:
            group[field.name][start:stop] = values[..., index[0], :, :]
            continue
        shape = (*values.shape[:-3], len(levels), *values.shape[-2:])
        padded = np.full(shape, np.nan, dtype=np.float32)  # a level of another field
        padded[..., [levels.index(parsed[i].level_hpa or 0) for i in index], :, :] = values[..., index, :, :]
        group[field.name][start:stop] = padded
    group["written"][start:stop] = 1


@lru_cache(maxsize=1)
def _opened(source: str, channels: tuple[str, ...], time: np.datetime64) -> tuple[Gridded, State]:
    """The files, opened once by every process, and one time of them."""
    files = open_gridded(source)
    return files, read_times(files, channels, np.array([time]))


_regridder = lru_cache(maxsize=1)(regridder)
