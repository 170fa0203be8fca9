"""The files of a nature run: one Zarr store for users, and beside it what is needed to go on.

``OUT.zarr`` (Zarr 3, read by ``xarray.open_zarr``) holds the fields of :data:`genda.variables.EMBEDDED_CHANNELS`
under their WeatherBench 2 names, ``geopotential_at_surface`` and ``land_sea_mask``, and along ``time`` the coordinates
``split`` (train, validation, test, gap), ``stream`` (which independent integration) and ``written``: 1 where the frame
is finished, so that ``ds.sel(time=ds.written == 1)`` is the usable part of a run still going on. The group
``background`` is laid out and written by :mod:`genda.forecast.backgrounds`.

``OUT.restart/`` holds, per stream, the modal state at 00 UTC of every day (five days a file) and ``latest.npz``, all
that is needed to continue to the same bits. Every file appears whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genda.atomic import replacing
from genda.forecast.nature import NatureModel
from genda.forecast.timeline import CHUNK_DAYS, FRAMES_PER_DAY, Stream, Timeline
from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_LEVELS, FIELDS


@dataclass(frozen=True)
class Run:
    """Where an experiment lives and what it is.

    Attributes:
        out: the Zarr store.
        timeline: years, seed and streams.
        grid: ``"t21"``, ``"t31"`` or ``"t42"``.
    """

    out: Path
    timeline: Timeline
    grid: str

    @property
    def restart(self) -> Path:
        return self.out.with_suffix(".restart")

    @property
    def attributes(self) -> dict[str, Any]:
        """What decides the run's bits; a store with other values is refused."""
        t = self.timeline
        return {
            "grid": self.grid,
            "seed": t.seed,
            "training_years": t.years,
            "members": t.members,
            "year_days": t.year_days,
            "spin_up_days": t.spin_up,
        }


def create_store(run: Run, model: NatureModel) -> None:
    """Lay out the store, or check that the one at hand is this run's.

    Raises:
        ValueError: where the store belongs to another run.
    """
    import xarray as xr
    import zarr

    if run.out.exists():
        found = zarr.open_group(run.out, mode="r").attrs
        for name, expected in run.attributes.items():
            if found.get(name) != expected:
                raise ValueError(f"{run.out}: found {name} = {found.get(name)!r}, expected {expected!r}")
        return
    grid, timeline = model.grid, run.timeline
    coordinates = xr.Dataset(
        {
            "geopotential_at_surface": (
                ("latitude", "longitude"),
                model.surface_geopotential.astype(np.float32),
                {"units": "m2 s-2", "standard_name": "surface_geopotential"},
            ),
            "land_sea_mask": (
                ("latitude", "longitude"),
                model.land_sea_mask.astype(np.float32),
                {"units": "1", "standard_name": "land_binary_mask"},
            ),
        },
        coords={
            **coordinates_of(grid),
            "time": ("time", timeline.time.astype("datetime64[ns]"), {"standard_name": "time"}),
            "split": ("time", timeline.split.astype(object), {"long_name": "train, validation, test or gap"}),
            "stream": ("time", timeline.stream_of_frame, {"long_name": "independent integration the frame is from"}),
        },
        attrs={**run.attributes, **description()},
    )
    partial = run.out.with_name(f".{run.out.name}.partial")
    try:
        encoding = {"time": {"units": "hours since 1970-01-01", "dtype": "int64"}}
        coordinates.to_zarr(partial, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        group = zarr.open_group(partial, mode="a")
        create_fields(group, grid, (("time", timeline.time.size, CHUNK_DAYS * FRAMES_PER_DAY),))
        group.attrs["coordinates"] = "split stream written"
        consolidate(partial)
        os.replace(partial, run.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def create_fields(group: Any, grid: LatLonGrid, leading: Sequence[tuple[str, int, int]]) -> None:
    """Empty arrays of :data:`genda.variables.FIELDS` and ``written``.

    Args:
        group: the Zarr group to make them in.
        grid: of every field.
        leading: name, length and chunk of the dimensions before level, latitude and longitude; the first is written along.
    """
    names, sizes, chunks = (tuple(part) for part in zip(*leading, strict=True))
    for field in FIELDS:
        level = ("level",) if field.on_levels else ()
        inner = (*((len(EMBEDDED_LEVELS),) if field.on_levels else ()), *grid.shape)
        group.create_array(
            field.name,
            shape=(*sizes, *inner),
            chunks=(*chunks, *inner),
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=(*names, *level, "latitude", "longitude"),
            attributes={"units": field.units, "standard_name": field.standard_name},
        )
    group.create_array(
        "written",
        shape=sizes[:1],
        chunks=chunks[:1],
        dtype="int8",
        fill_value=0,
        dimension_names=names[:1],
        attributes={"long_name": "1 where finished"},
    )


def consolidate(path: Path) -> None:
    """Gather the store's metadata in one file, which xarray looks for first."""
    import zarr

    with warnings.catch_warnings():  # consolidated metadata is not in the Zarr 3 text yet; readers cope
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)


def coordinates_of(grid: LatLonGrid) -> dict[str, Any]:
    """Level, latitude and longitude with CF attributes, for :class:`xarray.Dataset`."""
    return {
        "level": (
            "level",
            np.array(EMBEDDED_LEVELS, dtype=np.int32),
            {"units": "hPa", "standard_name": "air_pressure", "positive": "down"},
        ),
        "latitude": ("latitude", np.array(grid.latitude), {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", np.array(grid.longitude), {"units": "degrees_east", "standard_name": "longitude"}),
    }


def description() -> dict[str, str]:
    """Global attributes that say what made the data."""
    return {
        "Conventions": "CF-1.11",
        "title": "genda nature run: 29 channels every 12 h from a general circulation model",
        "source": f"SPEEDY physics, 8 sigma levels, 30-minute step: jcm {_version('jcm')}, jax {_version('jax')}, "
        f"genda {_version('genda')}",
        "recipe": "initial surface pressure scaled by 0.983; spin-up dropped; pressure levels by interpolation in "
        "ln p, hydrostatic for geopotential; below ground after Trenberth et al. (1993)",
    }


def write_frames(run: Run, stream: Stream, day: int, frames: Sequence[dict[str, NDArray[np.float64]]]) -> None:
    import zarr

    values = {name: np.concatenate([f[name] for f in frames]).astype(np.float32) for name in frames[0]}
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(f"{name} of {stream.name} is not finite in the five days from day {day}")
    group: Any = zarr.open_group(run.out, mode="r+")
    begin = (stream.offset or 0) + day * FRAMES_PER_DAY
    region = slice(begin, begin + CHUNK_DAYS * FRAMES_PER_DAY)
    for field in FIELDS:
        group[field.name][region] = values[field.id]
    group["written"][region] = 1


def modal_state(run: Run, stream: Stream, day: int) -> list[NDArray[Any]]:
    """Leaves of the modal dynamics of a stream at 00 UTC, ``day`` days after its start.

    Raises:
        FileNotFoundError: where the stream has not come that far.
    """
    chunk = day - day % CHUNK_DAYS
    with np.load(run.restart / stream.name / f"days-{chunk:05d}.npz") as saved:
        return [saved[name][day % CHUNK_DAYS] for name in sorted(saved.files)]


def complete(run: Run, stream: Stream) -> bool:
    """Whether a stream has reached its end."""
    return days_done(run, stream) >= stream.days


def days_done(run: Run, stream: Stream) -> int:
    latest = run.restart / stream.name / "latest.npz"
    if not latest.exists():
        return -stream.spin_up
    with np.load(latest) as saved:
        return int(saved["day"])


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]], *, compress: bool = True) -> None:
    """One npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)  # type: ignore[arg-type]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
