"""Frames of a training store in random order, as fast as a GPU takes them.

zarr-python spends a millisecond on a chunk, tensorstore (extra ``loader``) a twentieth of that, and on all cores. It gives what is
stored as it is stored, so it is used where :func:`genda.state.read_times` gives the same, as in every store of ``genda data
prepare``; otherwise frames are read in the general way, and the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.files import Gridded, Times, open_gridded
from genda.state import read_times
from genda.variables import Channel
from genda.variables import channels as parse_channels

log = logging.getLogger(__name__)

FrameReader = Callable[[Times], Tensor]
"""Distinct times to physical fields, shape (time, channel, lat, lon)."""


def frame_reader(path: Path, channels: Sequence[str]) -> FrameReader:
    """What reads frames of these channels.

    Raises:
        ValueError: for files that cannot be read; the reader raises it too, naming the channel that is not finite.
    """
    files = open_gridded(path)
    written = files.coordinate("written")  # a nature run may still be going on
    sample = (files.times if written is None else files.times[written == 1])[:1]
    first = read_times(files, channels, sample)
    fast = _zarr_reader(path, files, parse_channels(first.channels), first.grid.shape)
    if fast is not None and torch.equal(fast(sample), first.values):
        return fast
    log.warning("%s: read frame by frame; a store of genda data prepare and the extra 'loader' are faster", path)
    return lambda times: read_times(files, channels, times).values


def _zarr_reader(path: Path, files: Gridded, channels: Sequence[Channel], shape: tuple[int, int]) -> FrameReader | None:
    """A reader of the arrays as they lie there; None without tensorstore, or where they are no Zarr arrays of such frames."""
    try:
        import tensorstore
    except ImportError:
        return None
    if not (path / "zarr.json").is_file():
        return None
    part, stored = files.parts[0], []
    for item in dict.fromkeys(c.field for c in channels):
        index = [i for i, c in enumerate(channels) if c.field == item]
        dims = ("time", *(("level",) if item.on_levels else ()), "latitude", "longitude")
        if item.name not in part or part[item.name].dims != dims or part[item.name].shape[-2:] != shape:
            return None
        there = part["level"].values.tolist() if item.on_levels else []
        levels = [there.index(channels[i].level_hpa) for i in index] if item.on_levels else []
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{(path / item.name).absolute()}/"}}
        stored.append((index, levels, tensorstore.open(spec, read=True).result()))
    positions = part.get_index("time")

    def read(times: Times) -> Tensor:
        frames: NDArray[np.intp] = positions.get_indexer(times)  # type: ignore[arg-type]
        values = torch.empty(len(times), len(channels), *shape)
        begun: list[tuple[list[int], list[int], Any]] = [
            (index, levels, a[frames].read()) for index, levels, a in stored
        ]
        for index, levels, pending in begun:
            found = torch.from_numpy(pending.result())
            values[:, index] = found[:, levels] if levels else found.unsqueeze(1)
        finite = torch.isfinite(values).all(dim=-1).all(dim=-1)
        if not bool(finite.all()):
            frame, channel = (int(k) for k in (~finite).nonzero()[0])
            raise ValueError(f"{path}: {channels[channel].id} at {times[frame]}: found a value that is not finite")
        return values

    return read
