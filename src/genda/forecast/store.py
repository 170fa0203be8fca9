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
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genda.atomic import replacing
from genda.data.store import consolidate, coordinates_of, create_fields
from genda.forecast.nature import NatureModel
from genda.forecast.timeline import CHUNK_DAYS, FRAMES_PER_DAY, Stream, Timeline
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS, FIELDS


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


def open_run(path: Path) -> Run:
    """The run whose store is at a path.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for a store that no nature run made.
    """
    import zarr

    if not Path(path).is_dir():
        raise FileNotFoundError(f"{path}: no such nature run")
    found = zarr.open_group(path, mode="r").attrs
    names = ("training_years", "seed", "members", "year_days", "spin_up_days", "grid")
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path}: found no {', '.join(missing)}, expected the attributes of a nature run")
    years, seed, members, year_days, spin_up = (int(str(found[name])) for name in names[:-1])
    return Run(Path(path), Timeline(years, seed, members, year_days, spin_up), str(found["grid"]))


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
            **coordinates_of(grid, EMBEDDED_LEVELS),
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
        create_fields(group, EMBEDDED_CHANNELS, grid, (("time", timeline.time.size, CHUNK_DAYS * FRAMES_PER_DAY),))
        group.attrs["coordinates"] = "split stream written"
        consolidate(partial)
        os.replace(partial, run.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def dynamics_at(run: Run, time: np.datetime64) -> list[NDArray[Any]]:
    """Leaves of the truth's modal dynamics at a time.

    Raises:
        FileNotFoundError: where the run has none of that time.
    """
    stream, day = stream_at(run, time)
    try:
        return modal_state(run, stream, day)
    except FileNotFoundError:
        raise FileNotFoundError(f"{run.restart}: found no modal state of {time}, expected those of every day") from None


def stream_at(run: Run, time: np.datetime64) -> tuple[Stream, int]:
    """The truth stream a time belongs to, and its day there.

    Raises:
        FileNotFoundError: for a time that is not 00 UTC of a day of the run.
    """
    for stream in run.timeline.streams:
        hours = (time - stream.start) / np.timedelta64(1, "h")
        if hours % 24 == 0 and 0 < hours < 24 * stream.days:  # at 0 the truth is another stream's last frame
            return stream, int(hours) // 24
    raise FileNotFoundError(f"{run.out}: found no modal state of {time}, expected 00 UTC of a day of the run")


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
