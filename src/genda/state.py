"""Atmospheric states between xarray and tensors, and their normalisation.

A file becomes a :class:`State` (physical SI units, channels stacked, latitude north to south) after its names, units,
coordinates and values have been checked; a :class:`Normalisation` turns that into the anomalies the methods work on,

    x = (state - mean(time)) / std,    mean(t) = c_0 + sum_k c_{2k-1} cos(k w t) + c_{2k} sin(k w t),

with w one turn a year, so that the seasonal cycle is part of the climatology and not of the prior. K = 0 is a plain mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from genda.atomic import replacing
from genda.files import Gridded, Times, canonical, open_gridded
from genda.grid import LatLonGrid
from genda.variables import FIELDS, STANDARD_GRAVITY, Channel, Field, channels

NETCDF_SUFFIXES = (".nc", ".nc4")
ZARR_SUFFIX = ".zarr"
_DAYS_PER_YEAR = 365.2425
_UNIT_SPELLINGS = {
    "m2 s-2": {"m2 s-2", "m**2 s**-2", "m^2 s^-2", "m2/s2", "m^2/s^2", "m2 s**-2", "j kg-1"},
    "K": {"k", "kelvin"},
    "m s-1": {"m s-1", "m s**-1", "m/s", "m s^-1", "meter/second"},
    "kg kg-1": {"kg kg-1", "kg kg**-1", "kg/kg", "1", "kg kg^-1"},
    "Pa": {"pa", "pascal", "pascals"},
}
_GEOPOTENTIAL_HEIGHT_NAMES = ("geopotential_height", "gh")
_GEOPOTENTIAL_HEIGHT_UNITS = {"m", "gpm", "metre", "meter", "metres", "meters"}


@dataclass(frozen=True)
class State:
    """Fields in physical units.

    Attributes:
        values: shape (time, channel, latitude, longitude) or (time, member, channel, latitude, longitude).
        channels: identifiers of the channels, in order.
        grid: where the values stand.
        times: valid times, datetime64[ns], shape (time,).
    """

    values: Tensor
    channels: tuple[str, ...]
    grid: LatLonGrid
    times: Times

    def __post_init__(self) -> None:
        expected = (len(self.times), len(self.channels), *self.grid.shape)
        found = tuple(self.values.shape)
        if len(found) not in (4, 5) or (found[0], *found[-3:]) != expected:
            raise ValueError(
                f"state: found values of shape {found}, expected (time, [member,] channel, lat, lon) = {expected}"
            )

    def select(self, names: Sequence[str]) -> State:
        """The state with these channels in this order.

        Raises:
            ValueError: naming the channels it does not hold.
        """
        missing = [name for name in names if name not in self.channels]
        if missing:
            raise ValueError(f"channels {', '.join(missing)} are missing: found {', '.join(self.channels)}")
        index = [self.channels.index(name) for name in names]
        return State(self.values[..., index, :, :], tuple(names), self.grid, self.times)


@dataclass(frozen=True)
class Normalisation:
    """Seasonal climatology per channel and grid point, and one standard deviation per channel.

    Attributes:
        mean: harmonic coefficients, shape (1 + 2K, channel, latitude or 1, longitude or 1), physical units.
        std: shape (channel,), physical units.
    """

    mean: Tensor
    std: Tensor

    @staticmethod
    def fit(state: State, harmonics: int = 2, batch: int = 256) -> Normalisation:
        """Least-squares harmonics at every grid point, and the area-weighted std of what is left.

        Args:
            state: training states, shape (time, channel, latitude, longitude).
            harmonics: K, the number of annual harmonics.
            batch: states held in float64 at a time.

        Raises:
            ValueError: with fewer states than coefficients.
        """
        basis = _harmonic_basis(state.times, harmonics)
        if len(state.times) < basis.shape[1]:
            raise ValueError(f"normalisation: found {len(state.times)} times, expected at least {basis.shape[1]}")
        projector = torch.linalg.pinv(basis)
        blocks = range(0, len(state.times), batch)
        mean = sum(
            (
                torch.einsum("kt,tchw->kchw", projector[:, i : i + batch], state.values[i : i + batch].double())
                for i in blocks
            ),
            start=torch.zeros((basis.shape[1], *state.values.shape[1:]), dtype=torch.float64),
        )
        weights = torch.as_tensor(state.grid.area_weights).view(-1, 1)
        squares = torch.zeros(len(state.channels), dtype=torch.float64)
        for i in blocks:
            anomaly = state.values[i : i + batch].double() - torch.einsum("tk,kchw->tchw", basis[i : i + batch], mean)
            squares += (weights * anomaly**2).mean(dim=(-2, -1)).sum(dim=0)
        return Normalisation(mean.float(), (squares / len(state.times)).sqrt().float())

    def mean_at(self, times: Times) -> Tensor:
        """Climatological mean, shape (time, channel, latitude or 1, longitude or 1)."""
        basis = _harmonic_basis(times, (self.mean.shape[0] - 1) // 2).to(self.mean)
        return torch.einsum("tk,kchw->tchw", basis, self.mean)

    def normalise(self, values: Tensor, times: Times) -> Tensor:
        """Physical (time, [member,] channel, lat, lon) to normalised anomalies of the same shape."""
        return (values - self._aligned_mean(values, times)) / self.std.view(-1, 1, 1)

    def physical(self, values: Tensor, times: Times) -> Tensor:
        """Normalised anomalies (time, [member,] channel, lat, lon) to physical units."""
        return values * self.std.view(-1, 1, 1) + self._aligned_mean(values, times)

    def _aligned_mean(self, values: Tensor, times: Times) -> Tensor:
        mean = self.mean_at(times)
        return mean.unsqueeze(1) if values.ndim == 5 else mean


def nonnegative(values: Tensor, names: Sequence[str]) -> Tensor:
    """Physical fields (..., channel, lat, lon) with what cannot be negative, such as humidity, cut off at zero."""
    limits = torch.tensor([0.0 if item.field.nonnegative else -torch.inf for item in channels(names)])
    return torch.maximum(values, limits.to(values).view(-1, 1, 1))


def season(times: Times) -> Tensor:
    """Sine and cosine of the phase of the year, shape (time, 2)."""
    return _harmonic_basis(times, 1)[:, [2, 1]].float()


def _harmonic_basis(times: Times, harmonics: int) -> Tensor:
    """Columns 1, cos wt, sin wt, cos 2wt, …; shape (time, 1 + 2 harmonics), float64."""
    elapsed = (np.asarray(times, dtype="datetime64[ns]") - np.datetime64("2000-01-01", "ns")) / np.timedelta64(1, "D")
    phase = 2 * np.pi * torch.as_tensor(np.atleast_1d(elapsed)) / _DAYS_PER_YEAR
    columns = [torch.ones_like(phase)]
    for k in range(1, harmonics + 1):
        columns += [torch.cos(k * phase), torch.sin(k * phase)]
    return torch.stack(columns, dim=1)


def read_state(
    path: str | Path, names: Sequence[str] | None = None, times: slice | Times | None = None, group: str | None = None
) -> State:
    """Read a netCDF or GRIB file, a Zarr store or a folder of them, see :mod:`genda.files`.

    Args:
        path: where they are; a URL of a Zarr store too.
        names: channels to read; all that are there when None.
        times: a label slice or the exact times to read; all when None.
        group: group inside the file.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: naming file, variable, what was found and what was expected.
    """
    files = open_gridded(path, group)
    try:
        return read_times(files, names, times)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: {error.args[0] if error.args else error}") from error
    finally:
        files.close()


def read_times(files: Gridded, names: Sequence[str] | None = None, times: slice | Times | None = None) -> State:
    """Channels and times of files that are open; arguments as of :func:`read_state`.

    Raises:
        ValueError: naming the variable, what was found and what was expected.
    """
    if isinstance(times, slice):
        times = files.times[pd.DatetimeIndex(files.times).slice_indexer(times.start, times.stop)]
    fields = FIELDS if names is None else tuple(c.field for c in channels(names))
    return _stacked(files.at(times, {name for item in fields for name in spellings(item)}), names)


def from_dataset(dataset: xr.Dataset, names: Sequence[str] | None = None) -> State:
    """Check a data set with WeatherBench 2 names and stack its channels.

    Args:
        dataset: dims time, [number,] [level,] latitude, longitude in any order; a missing time becomes length 1.
        names: channel identifiers; all that are present, in table order, when None.

    Raises:
        ValueError: naming the variable, what was found and what was expected.
    """
    return read_times(Gridded(canonical(dataset)), names)


def _stacked(dataset: xr.Dataset, names: Sequence[str] | None) -> State:
    grid, rows, columns = LatLonGrid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values)
    wanted = channels(names) if names is not None else present_channels(dataset)
    if not wanted:
        raise ValueError(
            f"no known variable: found {', '.join(map(str, dataset.data_vars))}, expected e.g. geopotential"
        )
    if "time" not in dataset.dims:
        stamp = dataset["time"].values if "time" in dataset.coords else np.datetime64("NaT", "ns")
        dataset = dataset.drop_vars("time", errors="ignore").expand_dims(time=[stamp])
    times = np.asarray(dataset["time"].values, dtype="datetime64[ns]")
    if times.size == 0:
        raise ValueError("time: found no times, expected at least one")
    leading = ("time", "number") if "number" in dataset.dims else ("time",)
    shape = (*(dataset.sizes[name] for name in leading), len(wanted), *grid.shape)
    stacked = np.empty(shape, dtype=np.float32)
    for item in dict.fromkeys(c.field for c in wanted):
        index = [i for i, c in enumerate(wanted) if c.field == item]
        values = read_field(dataset, item, [wanted[i].level_hpa for i in index], leading)
        for i, slab in zip(index, np.moveaxis(values, -3, 0), strict=True):
            stacked[..., i, :, :] = _checked(slab[..., rows, :][..., columns], wanted[i])
    return State(torch.from_numpy(stacked), tuple(c.id for c in wanted), grid, times)


def to_dataset(state: State) -> xr.Dataset:
    """A CF data set with WeatherBench 2 names: dims time, [number,] [level,] latitude, longitude; float32.

    Raises:
        FloatingPointError: if a value is not finite, naming the channel; such a field never reaches a file.
    """
    values = state.values.detach().cpu().float().numpy()
    finite = np.isfinite(values).all(axis=(-2, -1)).reshape(-1, len(state.channels)).all(axis=0)
    if not finite.all():
        raise FloatingPointError(f"{state.channels[int(finite.argmin())]}: found a value that is not finite")
    leading = ("time", "number") if values.ndim == 5 else ("time",)
    parsed = channels(state.channels)
    arrays = {}
    for item in dict.fromkeys(c.field for c in parsed):
        index = [i for i, c in enumerate(parsed) if c.field == item]
        attributes = {
            "units": item.units,
            "standard_name": item.standard_name,
            "long_name": item.name.replace("_", " "),
        }
        if item.on_levels:
            stacked = np.moveaxis(values[..., index, :, :], -3, len(leading))
            levels = np.array([parsed[i].level_hpa for i in index], dtype=np.int32)
            arrays[item.name] = xr.DataArray(
                stacked, dims=(*leading, "level", "latitude", "longitude"), coords={"level": levels}, attrs=attributes
            )
        else:
            arrays[item.name] = xr.DataArray(
                values[..., index[0], :, :], dims=(*leading, "latitude", "longitude"), attrs=attributes
            )
    dataset = xr.Dataset(arrays)
    dataset = dataset.assign_coords(
        time=("time", np.asarray(state.times, dtype="datetime64[ns]"), {"standard_name": "time"}),
        latitude=("latitude", np.asarray(state.grid.latitude), {"units": "degrees_north", "standard_name": "latitude"}),
        longitude=(
            "longitude",
            np.asarray(state.grid.longitude),
            {"units": "degrees_east", "standard_name": "longitude"},
        ),
    )
    if "level" in dataset.coords:
        dataset["level"].attrs = {"units": "hPa", "standard_name": "air_pressure", "positive": "down"}
    if "number" in leading:
        members = np.arange(values.shape[1], dtype=np.int32)
        dataset = dataset.assign_coords(number=("number", members, {"standard_name": "realization"}))
    dataset.attrs["Conventions"] = "CF-1.11"
    return dataset


def write_dataset(dataset: xr.Dataset, path: str | Path, attributes: Mapping[str, str] | None = None) -> None:
    """Write a compressed netCDF-4 file, or a Zarr store where ``path`` ends in .zarr; it appears whole or not at all.

    Raises:
        ValueError: where there is a folder of that name.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: found a folder, expected a name that is free")
    described = dataset.assign_attrs(attributes or {})
    with replacing(path) as partial:
        if Path(path).suffix == ZARR_SUFFIX:
            described.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
        else:
            encoding = {name: {"zlib": True, "complevel": 4, "shuffle": True} for name in dataset.data_vars}
            described.to_netcdf(partial, engine="h5netcdf", encoding=encoding)


def present_channels(dataset: xr.Dataset) -> tuple[Channel, ...]:
    """The channels of a data set, in table order; a level on which the first time of a variable has no value does not count."""
    found: list[Channel] = []
    for item in FIELDS:
        name = variable_name(dataset, item)
        if name is None:
            continue
        if item.on_levels:
            first = dataset[name].isel(time=0) if "time" in dataset[name].dims else dataset[name]
            missing = np.isnan(_values(first.transpose("level", ...))).reshape(first.sizes["level"], -1).all(axis=1)
            found += [Channel(item, int(v)) for v, gone in zip(first["level"].values, missing, strict=True) if not gone]
        else:
            found.append(Channel(item, None))
    return tuple(found)


def spellings(item: Field) -> tuple[str, ...]:
    """The names a field is read under."""
    return (item.name, item.id, *item.aliases, *(_GEOPOTENTIAL_HEIGHT_NAMES if item.id == "z" else ()))


def variable_name(dataset: xr.Dataset, item: Field) -> str | None:
    """What a data set calls a field; None where it has none.

    Raises:
        ValueError: for a field on levels that has none.
    """
    name = next((name for name in spellings(item) if name in dataset.data_vars), None)
    if name is not None and item.on_levels and "level" not in dataset[name].dims:
        found = f"found dimensions {dataset[name].dims}"
        raise ValueError(f"{name}: {found}, expected a pressure coordinate such as 'level' in hPa")
    return name


def read_field(
    dataset: xr.Dataset, item: Field, levels: Sequence[int | None], leading: tuple[str, ...]
) -> NDArray[np.float32]:
    """Values of a field in its own units, dims ``leading``, level, latitude, longitude (one level at the surface).

    Raises:
        ValueError: for a variable, level, dimension or unit that is not as expected, or values that cannot be read.
    """
    name = variable_name(dataset, item)
    if name is None:
        raise ValueError(f"{item.name} is missing: found {', '.join(map(str, dataset.data_vars))}")
    array = dataset[name]
    if item.on_levels:
        there = array["level"].values.tolist()
        for level in levels:
            if level not in there:
                raise ValueError(f"{item.name}: found levels {there} hPa, expected {level} hPa among them")
        array = array.isel(level=[there.index(level) for level in levels])
    order = (*leading, "level", "latitude", "longitude")
    unexpected = [str(d) for d in array.dims if d not in order]
    if unexpected:
        raise ValueError(f"{name}: found unexpected dimensions {', '.join(unexpected)}, expected {', '.join(order)}")
    factor = unit_factor(item, name, dataset[name].attrs.get("units"))
    values = _values(array.expand_dims([d for d in order if d not in array.dims]).transpose(*order))
    return np.asarray(values * np.float32(factor), dtype=np.float32)


def unit_factor(item: Field, name: str, units: str | None) -> float:
    """What values of a variable are multiplied by to be in the field's own units; geopotential height becomes geopotential.

    Raises:
        ValueError: for other units.
    """
    found = str(units or ("m" if name in _GEOPOTENTIAL_HEIGHT_NAMES else item.units)).strip()
    if item.id == "z" and found.lower() in _GEOPOTENTIAL_HEIGHT_UNITS:
        return STANDARD_GRAVITY
    if found.lower() not in _UNIT_SPELLINGS[item.units]:
        raise ValueError(f"{name}: found units {found!r}, expected {item.units!r}")
    return 1.0


def _values(array: xr.DataArray) -> NDArray[np.floating[Any]]:
    try:
        return np.asarray(array.values)
    except Exception as error:  # h5py and the codecs of zarr raise a dozen types for a damaged chunk
        raise ValueError(f"{array.name}: found values that cannot be read ({' '.join(str(error).split())})") from error


def _checked(values: NDArray[np.float32], item: Channel) -> NDArray[np.float32]:
    low, high = item.field.bounds
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(
            f"{item.field.name} ({item.id}): found {bad} values that are missing or not finite, expected none"
        )
    smallest, largest = float(values.min()), float(values.max())
    if smallest < low or largest > high:
        raise ValueError(
            f"{item.field.name} ({item.id}): found values from {smallest:.4g} to {largest:.4g}, "
            f"expected {low:g} to {high:g} {item.field.units}"
        )
    return values
