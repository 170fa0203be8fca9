"""The nature run as files: truth every 12 h in one Zarr store, resumable chunk by chunk.

``OUT.zarr`` (Zarr 3, read by ``xarray.open_zarr``) holds the fields of :data:`genda.variables.EMBEDDED_CHANNELS`
under their WeatherBench 2 names, ``geopotential_at_surface`` and ``land_sea_mask``, and along ``time`` the coordinates
``split`` (train, validation, test, gap), ``stream`` (which independent integration) and ``written``: 1 where the frame
is finished, so that ``ds.sel(time=ds.written == 1)`` is the usable part of a run still going on. The group
``background`` is written by :mod:`genda.forecast.backgrounds`.

``OUT.restart/`` beside it holds, per stream, the modal state at 00 UTC of every day (five days a file) and one file
with all that is needed to go on. A chunk of five days is written in the order fields, ``written`` flag, modal states,
continuation file, each whole or not at all; a killed run repeats at most the chunk it was in, to the same bits.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genda.forecast.nature import GcmState, NatureModel
from genda.forecast.pressure import to_pressure_levels
from genda.forecast.timeline import CHUNK_DAYS, FRAMES_PER_DAY, Stream, Timeline
from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_LEVELS, FIELDS

Report = Callable[[str, int, int], None]
"""Called with the name of a part, the days (or dates) done and those to do."""


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
            **grid_coordinates(grid),
            "time": ("time", timeline.time.astype("datetime64[ns]"), {"standard_name": "time"}),
            "split": ("time", timeline.split.astype(object), {"long_name": "train, validation, test or gap"}),
            "stream": ("time", timeline.stream_of_frame, {"long_name": "independent integration the frame is from"}),
        },
        attrs={**run.attributes, **description()},
    )
    partial = run.out.with_name(f".{run.out.name}.partial-{os.getpid()}")
    encoding = {"time": {"units": "hours since 1970-01-01", "dtype": "int64"}}
    coordinates.to_zarr(partial, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(partial, mode="a")
    frames, (nlat, nlon) = timeline.time.size, grid.shape
    chunk = CHUNK_DAYS * FRAMES_PER_DAY
    for field in FIELDS:
        levels = (len(EMBEDDED_LEVELS),) if field.on_levels else ()
        group.create_array(
            field.name,
            shape=(frames, *levels, nlat, nlon),
            chunks=(chunk, *levels, nlat, nlon),
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=("time", *(("level",) if field.on_levels else ()), "latitude", "longitude"),
            attributes={"units": field.units, "standard_name": field.standard_name},
        )
    group.create_array(
        "written", shape=(frames,), chunks=(chunk,), dtype="int8", fill_value=0, dimension_names=("time",),
        attributes={"long_name": "1 where the frame is finished"},
    )
    group.attrs["coordinates"] = "split stream written"
    with warnings.catch_warnings():  # consolidated metadata is not in the Zarr 3 text yet; every reader copes
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(partial)
    os.replace(partial, run.out)


def grid_coordinates(grid: LatLonGrid) -> dict[str, Any]:
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


def integrate(run: Run, streams: Sequence[Stream], report: Report | None = None) -> None:
    """Run streams of equal length to their end, together, from wherever they were left.

    Raises:
        FloatingPointError: naming the field, the stream and the date, where a field is not finite; nothing of that
            chunk is written.
        ValueError: where the streams differ in length.
    """
    if len({(s.days, s.spin_up) for s in streams}) != 1:
        raise ValueError("streams: found different lengths, expected equal ones to advance together")
    first = streams[0]
    day = min(_days_done(run, s) for s in streams)
    if day >= first.days:
        return
    model = NatureModel(run.grid, len(streams))
    create_store(run, model)
    if day == -first.spin_up:
        dates = [s.start - np.timedelta64(24 * s.spin_up, "h") for s in streams]
        state = model.start([s.seed for s in streams], dates)
    else:
        state = _load_together(run, streams, model, day)
    while day < first.days:
        modal: list[list[list[NDArray[Any]]]] = [[] for _ in streams]
        frames: list[list[dict[str, NDArray[np.float64]]]] = [[] for _ in streams]
        for _ in range(CHUNK_DAYS):
            leaves = model.leaves(state.dynamics)
            state, fields = model.advance(state)
            for member, sigma_fields in enumerate(fields):
                modal[member].append([leaf[member] for leaf in leaves])
                if day >= 0 and streams[member].offset is not None:
                    frames[member].append(to_pressure_levels(sigma_fields, [100.0 * p for p in EMBEDDED_LEVELS]))
                if not np.isfinite(sigma_fields.temperature).all():
                    raise FloatingPointError(f"temperature of {streams[member].name} is not finite, day {day}")
        for member, stream in enumerate(streams):
            if frames[member]:
                _write_frames(run, stream, day, frames[member])
            if day >= 0:
                _save(run.restart / stream.name / f"days-{day:05d}.npz", _by_leaf(modal[member]))
        day += CHUNK_DAYS
        leaves = model.leaves(state)
        for member, stream in enumerate(streams):
            latest = {f"leaf{i:03d}": leaf[member] for i, leaf in enumerate(leaves)}
            _save(run.restart / stream.name / "latest.npz", {"day": np.array(day), **latest}, compress=False)
            if report is not None:
                report(stream.name, day + stream.spin_up, stream.days + stream.spin_up)


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
    return _days_done(run, stream) >= stream.days


def _days_done(run: Run, stream: Stream) -> int:
    latest = run.restart / stream.name / "latest.npz"
    if not latest.exists():
        return -stream.spin_up
    with np.load(latest) as saved:
        return int(saved["day"])


def _load_together(run: Run, streams: Sequence[Stream], model: NatureModel, day: int) -> GcmState:
    members = []
    for stream in streams:
        with np.load(run.restart / stream.name / "latest.npz") as saved:
            if int(saved["day"]) != day:
                raise ValueError(f"{stream.name}: found day {int(saved['day'])}, expected {day} as its companions")
            members.append([saved[name] for name in sorted(saved.files) if name != "day"])
    return model.restore([np.stack(leaves) for leaves in zip(*members, strict=True)])


def _write_frames(run: Run, stream: Stream, day: int, frames: Sequence[dict[str, NDArray[np.float64]]]) -> None:
    import zarr

    values = {name: np.concatenate([f[name] for f in frames]).astype(np.float32) for name in frames[0]}
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(f"{name} of {stream.name} is not finite in the five days from day {day}")
    group = zarr.open_group(run.out, mode="r+")
    begin = (stream.offset or 0) + day * FRAMES_PER_DAY
    region = slice(begin, begin + CHUNK_DAYS * FRAMES_PER_DAY)
    for field in FIELDS:
        group[field.name][region] = values[field.id]
    group["written"][region] = 1


def _by_leaf(states: Sequence[Sequence[NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {f"leaf{i:03d}": np.stack(leaves) for i, leaves in enumerate(zip(*states, strict=True))}


def _save(path: Path, arrays: dict[str, NDArray[Any]], *, compress: bool = True) -> None:
    """One npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            (np.savez_compressed if compress else np.savez)(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
