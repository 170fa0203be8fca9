"""The Zarr store that training reads: fields under their WeatherBench 2 names, and ``written``, 1 where a frame is finished.

A chunk is what is read at once, so one frame for training in random order; a shard is a file, which holds many chunks, since a file
for each frame and variable is more than file systems like.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genda.grid import LatLonGrid
from genda.variables import channels as parse_channels


def create_fields(
    group: Any,
    channels: Sequence[str],
    grid: LatLonGrid,
    leading: Sequence[tuple[str, int, int]],
    shard: int | None = None,
) -> None:
    """Empty arrays of the channels' fields and ``written``.

    Args:
        group: the Zarr group to make them in.
        channels: identifiers; all levels of a field are in one array, so that every field has the same.
        grid: of every field.
        leading: name, length and chunk of the dimensions before level, latitude and longitude; the first is written along.
        shard: frames of the first dimension in a file, a multiple of its chunk; one chunk where None.
    """
    from zarr.codecs import BloscCodec

    names, sizes, chunks = (tuple(part) for part in zip(*leading, strict=True))
    parsed = parse_channels(channels)
    for field in dict.fromkeys(c.field for c in parsed):
        level = ("level",) if field.on_levels else ()
        inner = (*((len(levels_of(channels)),) if field.on_levels else ()), *grid.shape)
        group.create_array(
            field.name,
            shape=(*sizes, *inner),
            chunks=(*chunks, *inner),
            shards=None if shard is None else (shard, *chunks[1:], *inner),
            compressors=BloscCodec(
                cname="lz4", clevel=3, shuffle="shuffle"
            ),  # decoded twenty times as fast as the default
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=(*names, *level, "latitude", "longitude"),
            attributes={"units": field.units, "standard_name": field.standard_name},
        )
    group.create_array(
        "written",
        shape=sizes[:1],
        chunks=(shard or chunks[0],),
        dtype="int8",
        fill_value=0,
        dimension_names=names[:1],
        attributes={"long_name": "1 where finished"},
    )


def levels_of(channels: Sequence[str]) -> tuple[int, ...]:
    """Levels of any of the channels, hPa, in order of appearance."""
    return tuple(dict.fromkeys(c.level_hpa for c in parse_channels(channels) if c.level_hpa is not None))


def coordinates_of(grid: LatLonGrid, levels: Sequence[int]) -> dict[str, Any]:
    """Level, latitude and longitude with CF attributes, for :class:`xarray.Dataset`."""
    return {
        "level": (
            "level",
            np.array(levels, dtype=np.int32),
            {"units": "hPa", "standard_name": "air_pressure", "positive": "down"},
        ),
        "latitude": ("latitude", np.array(grid.latitude), {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", np.array(grid.longitude), {"units": "degrees_east", "standard_name": "longitude"}),
    }


def consolidate(path: Path) -> None:
    """Gather the store's metadata in one file, which xarray looks for first."""
    import zarr

    with warnings.catch_warnings():  # consolidated metadata is not in the Zarr 3 text yet; readers cope
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)
