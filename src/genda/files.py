"""Gridded files of any kind as data sets with one set of names: netCDF, Zarr, GRIB, and folders of these.

Nothing is read before it is asked for. A file is known by its first bytes, a Zarr store by its metadata; URLs such as ``gs://`` are
Zarr stores (extra ``cloud``), GRIB needs the extra ``grib``. What is split over files by time, variable or level, or in a GRIB file
over runs and steps, is put together when times are asked for, so that a folder of downloads is one data set.

=========================== =====================================================================================
``latitude longitude``      1-D, degrees, any order
``level``                   hPa, whatever it is called and whichever unit it is in
``time``                    valid time: that of the run plus the step
``number``                  ensemble member, where there is one
``geopotential_at_surface`` also where it is called ``z`` and has no level, as in the invariants of the Climate Data Store
=========================== =====================================================================================
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from genda.extras import installing
from genda.grib import DamagedError, open_grib
from genda.variables import STATIC_FIELDS

Times = NDArray[np.datetime64]

_ALIASES = {"lat": "latitude", "lon": "longitude", "member": "number", "realization": "number"}
_PRESSURE_COORDINATES = ("level", "isobaricInhPa", "pressure_level", "plev", "isobaricInPa")
_KINDS = {
    b"\x89HDF": "netCDF-4 file",
    b"CDF\x01": "netCDF-3 file",
    b"CDF\x02": "netCDF-3 file",
    b"GRIB": "GRIB file",
}
_ENGINES = {"netCDF-4 file": "h5netcdf", "netCDF-3 file": "scipy"}
_PACKINGS = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
_CLIENTS = {
    **dict.fromkeys(("gs", "gcs"), f"gcsfs: {installing('cloud')}"),
    **dict.fromkeys(("s3", "s3a"), "s3fs: pip install s3fs"),
    **dict.fromkeys(("http", "https"), "aiohttp: pip install aiohttp requests"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs: pip install adlfs"),
}
_ZARR_METADATA = ("zarr.json", ".zgroup", ".zmetadata")
_SUFFIXES = (".nc", ".nc4", ".grib", ".grib2", ".grb", ".grb2", ".zarr")


@dataclass(frozen=True)
class Gridded:
    """Files that together are one data set.

    Attributes:
        parts: their hypercubes with names as above, not yet read; at least one.

    Raises:
        ValueError: where the parts stand on different grids, or hold a time twice.
    """

    parts: tuple[xr.Dataset, ...]

    def __post_init__(self) -> None:
        for part in self.parts:
            for name in ("latitude", "longitude"):
                if name not in part.coords or part[name].ndim != 1:
                    expected = "expected a regular or Gaussian grid"
                    raise ValueError(f"{name}: no one-dimensional coordinate found, {expected}")
                if not np.array_equal(part[name].values, self.parts[0][name].values):
                    raise ValueError(
                        f"{name}: found {part.sizes[name]} and {self.parts[0].sizes[name]} values that differ from file to "
                        "file, expected one grid"
                    )
            if "time" not in part.dims:
                continue
            if part["time"].dtype.kind != "M":
                raise ValueError(
                    f"time: found values such as {part['time'].values[0]}, expected dates of the standard calendar"
                )
            if not part.get_index("time").is_unique:
                raise ValueError("time: found duplicate times")

    @cached_property
    def times(self) -> Times:
        """All valid times, ascending; empty where nothing depends on time."""
        found = [part["time"].values.astype("datetime64[ns]") for part in self.parts if "time" in part.dims]
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype="datetime64[ns]")

    @cached_property
    def _times_of(self) -> dict[str, pd.Index]:
        """The times that each variable has, of all files together; without those that do not depend on time."""
        found: dict[str, list[Times]] = {}
        for part in self.parts:
            own = part["time"].values.astype("datetime64[ns]") if "time" in part.dims else None
            for name in part.data_vars:
                if own is not None and "time" in part[name].dims:
                    found.setdefault(str(name), []).append(own)
        return {name: pd.Index(np.unique(np.concatenate(held))) for name, held in found.items()}

    def times_with(self, names: Iterable[str]) -> Times:
        """Valid times that every variable of these names has, ascending, leaving out names that no file has."""
        held = [self._times_of[name] for name in names if name in self._times_of]
        common = self.times[np.all([np.isin(self.times, times) for times in held], axis=0)] if held else self.times
        return np.asarray(common)

    def at(self, times: Times | None = None, names: Iterable[str] | None = None) -> xr.Dataset:
        """The data set at some times, in their order; a single file's is not read yet.

        Args:
            times: valid times that are there; all by default, ascending.
            names: of the variables wanted, where it matters that others are not read.

        Raises:
            ValueError: for a time that is not there, or that one of the variables lacks, or files that contradict each other.
        """
        if times is not None and self.times.size and (absent := ~np.isin(times, self.times)).any():
            raise ValueError(
                f"time: found {self.times[0]} to {self.times[-1]} without {times[absent][0]}, expected it among them"
            )
        wanted = None if names is None else set(names)
        if wanted is not None:
            self._check_times(wanted, times)
        pieces = []
        for part in self.parts:
            piece = part if wanted is None else part[[name for name in part.data_vars if name in wanted]]
            if not piece.data_vars:
                continue
            if "time" in piece.dims:
                index = pd.Index(piece["time"].values)
                own = index.argsort() if times is None else index.get_indexer(pd.Index(times))
                piece = piece.isel(time=own[own >= 0])
            if piece.sizes.get("time", 1):
                pieces.append(piece)
        if len(pieces) < 2:
            return pieces[0] if pieces else self.parts[0]
        try:
            merged = xr.merge(pieces, compat="no_conflicts", join="outer")
        except xr.MergeError as error:
            raise ValueError(f"found files that contradict each other ({error}), expected each value once") from error
        return merged if times is None else merged.sel(time=times)

    def _check_times(self, names: set[str], times: Times | None) -> None:
        """Refuse a time asked for, or by default that any of these variables has, that one of them lacks."""
        held = {name: own for name, own in self._times_of.items() if name in names}
        if times is None:
            times = self.times[np.any([np.isin(self.times, own) for own in held.values()], axis=0)] if held else None
        for name, own in held.items():
            if times is not None and (lacking := own.get_indexer(pd.Index(times)) < 0).any():
                first = np.datetime_as_string(times[lacking][0], unit="m")
                raise ValueError(f"{name}: found {own.size} times without {first}, expected it among them")

    def close(self) -> None:
        for part in self.parts:
            part.close()

    @property
    def static(self) -> xr.Dataset:
        """Maps that never change, known by name (:data:`genda.variables.STATIC_FIELDS`), each (latitude, longitude)."""
        found: dict[str, xr.DataArray] = {}
        for part in self.parts:
            for field in STATIC_FIELDS:
                if field.name in part.data_vars and field.name not in found:
                    found[field.name] = part[field.name]
        return xr.Dataset(found)

    def coordinate(self, name: str) -> Times | NDArray[Any] | None:
        """A coordinate along time such as ``split``, in the order of :attr:`times`; None where no file has it.

        Raises:
            ValueError: where it is there for some times only, or files contradict each other.
        """
        held = [p[name].to_series() for p in self.parts if name in p.variables and p[name].dims == ("time",)]
        if not held:
            return None
        joined = pd.concat(held)
        series = joined[~joined.index.duplicated()]
        if not series.loc[joined.index].equals(joined) or series.size != self.times.size:
            raise ValueError(
                f"{name}: found {series.size} times of {self.times.size} with it, expected one value for each"
            )
        values: NDArray[Any] = np.asarray(series.loc[pd.DatetimeIndex(self.times)])
        return values.astype(str) if values.dtype.kind in "TO" else values


def open_gridded(location: str | Path, group: str | None = None) -> Gridded:
    """Open a file, a store or a folder of them.

    Args:
        location: a path, or the URL of a Zarr store.
        group: inside a netCDF file or Zarr store.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: for what is none of these, or does not fit together.
        ModuleNotFoundError: without the extra that its kind needs.
    """
    path = Path(location)
    if "://" in str(location) or not path.is_dir() or _is_zarr(path):
        files: list[str | Path] = [location]
    else:
        files = [p for p in sorted(path.rglob("*")) if p.suffix in _SUFFIXES and not _inside_zarr(p, path)]
    if not files:
        raise ValueError(f"{path}: found a folder without {', '.join(_SUFFIXES)}, expected some, or a Zarr store")
    cubes = [cube for file in files for cube in _cubes(file, group)]
    try:
        return Gridded(tuple(part for cube in cubes for part in canonical(cube)))
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error


def open_dataset(location: str | Path, group: str | None = None) -> xr.Dataset:
    """Open one netCDF file or Zarr store lazily, with the names it has.

    Raises:
        ValueError: if it is neither.
    """
    return _cubes(location, group)[0]


def canonical(dataset: xr.Dataset) -> tuple[xr.Dataset, ...]:
    """A data set under the names above; several where forecasts of more than one step are in it.

    Raises:
        ValueError: for levels that occur twice.
    """
    names = set(dataset.dims) | set(dataset.coords)
    aliases = {old: new for old, new in _ALIASES.items() if old in names and new not in names}
    if "valid_time" in dataset.dims:
        aliases["valid_time"] = "time"
        dataset = dataset.drop_vars("time", errors="ignore")
    dataset = dataset.rename(aliases)
    if "step" in dataset.dims:
        return tuple(p for i in range(dataset.sizes["step"]) for p in canonical(dataset.isel(step=i)))
    if "valid_time" in dataset.coords and dataset["valid_time"].dims in (("time",), ()):
        dataset = dataset.assign_coords(time=dataset["valid_time"])
    for alias in _PRESSURE_COORDINATES:
        if alias in dataset.coords:
            dataset = _with_levels(dataset, alias)
    if "z" in dataset.data_vars and "level" not in dataset["z"].coords:
        dataset = dataset.rename(z="geopotential_at_surface")
    short = {alias: f.name for f in STATIC_FIELDS for alias in (f.id, *f.aliases) if alias in dataset.data_vars}
    dataset = dataset.rename(short)
    for name in {f.name for f in STATIC_FIELDS} & set(
        dataset.data_vars
    ):  # downloads give them a date, which is no time of the data
        extra = dict.fromkeys(set(dataset[name].dims) - {"latitude", "longitude"}, 0)
        dataset[name] = dataset[name].isel(extra, drop=True).drop_vars("time", errors="ignore")
    if "time" in dataset.coords and not any("time" in dataset[name].coords for name in dataset.data_vars):
        dataset = dataset.drop_vars("time")
    elif "time" in dataset.coords and not dataset["time"].dims:  # of one frame: a file for each time is a data set too
        moving = [name for name in dataset.data_vars if "time" in dataset[name].coords]
        dataset = dataset.assign({name: dataset[name].expand_dims("time") for name in moving})
    scalars = [name for name in dataset.coords if not dataset[name].dims and name != "time"]
    return (dataset.drop_vars(scalars),)


def _with_levels(dataset: xr.Dataset, alias: str) -> xr.Dataset:
    """The coordinate of pressure as a dimension ``level`` in hPa."""
    values = np.atleast_1d(np.asarray(dataset[alias].values, dtype=np.float64))
    pascal = str(dataset[alias].attrs.get("units", "")).lower() == "pa" or values.max(initial=0.0) > 1100
    levels = np.round(values / 100 if pascal else values).astype(np.int32)
    if np.unique(levels).size != levels.size:
        raise ValueError(f"{alias}: found duplicate levels {levels.tolist()}")
    if not dataset[alias].dims:
        dataset = dataset.expand_dims(alias)
    renamed = dataset if alias == "level" else dataset.rename({alias: "level"})
    return renamed.assign_coords(level=levels)


def _cubes(location: str | Path, group: str | None) -> list[xr.Dataset]:
    """The hypercubes of one file or store, as they are."""
    path = Path(location)
    if "://" in str(location):
        kind = "URL of no Zarr store, or one"
    elif not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    else:
        kind = "Zarr store" if path.is_dir() else _kind(path)
    try:
        if "://" in str(location):
            return [_open_url(str(location), group)]
        if path.is_dir():
            consolidated = False if (path / "zarr.json").exists() else None  # of version 3 nothing is gained by looking
            return [xr.open_zarr(path, group=group, consolidated=consolidated, chunks=None)]
        if kind == "GRIB file":
            return open_grib(path)
        return [xr.open_dataset(path, group=group, engine=_ENGINES[kind])]
    except (FileNotFoundError, ModuleNotFoundError, DamagedError):
        raise
    except Exception as error:  # h5py, zarr, cfgrib and xarray raise a dozen types for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{location}: found a {kind} that cannot be opened ({reason}), expected a whole one"
        ) from error


def _kind(path: Path) -> str:
    """What a file is by its first bytes.

    Raises:
        ValueError: where that is nothing gridded.
    """
    with path.open("rb") as file:
        head = file.read(64)
    for first, kind in _KINDS.items():
        if head.startswith(first):
            return kind
    if not head:
        found = "an empty file"
    elif packing := next((name for first, name in _PACKINGS.items() if head.startswith(first)), None):
        found = f"one packed by {packing} (unpack it first)"
    elif all(byte in b"\t\n\r\f" or 0x20 <= byte < 0x7F for byte in head):
        found = f"text that begins {head.decode('ascii').split(chr(10))[0][:40]!r}"
    else:
        found = f"one that begins with the bytes {head[:4].hex(' ')}"
    raise ValueError(f"{path}: found {found}, expected a netCDF or GRIB file or a Zarr store")


def _open_url(url: str, group: str | None) -> xr.Dataset:
    options: dict[str, Any] = {"token": "anon"} if url.startswith(("gs://", "gcs://")) else {}
    # Else gcsfs first asks by gRPC of what kind a bucket is, for minutes where there is no network.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        with (
            warnings.catch_warnings(),
            _unlogged("gcsfs"),
        ):  # that a store without consolidated metadata opens more slowly
            warnings.simplefilter("ignore", RuntimeWarning)
            dataset: xr.Dataset = xr.open_zarr(url, group=group, chunks=None, storage_options=options)
        return dataset
    except FileNotFoundError:
        raise FileNotFoundError(f"{url}: no such store") from None
    except ImportError as error:
        scheme = url.split("://")[0]
        package = _CLIENTS.get(scheme, f"a package that gives fsspec {scheme}://")
        raise ModuleNotFoundError(f"{url}: expected the client of such stores, {package} ({error})") from error


@contextmanager
def _unlogged(name: str) -> Iterator[None]:
    """Without what a package logs of failures that it raises as well."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in _ZARR_METADATA)


def _inside_zarr(path: Path, root: Path) -> bool:
    return any(_is_zarr(parent) for parent in path.parents if parent != root and root in parent.parents)
