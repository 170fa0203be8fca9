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
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from genda.atomic import replacing
from genda.grid import LatLonGrid
from genda.variables import FIELDS, STANDARD_GRAVITY, Channel, Field, channels

Times = NDArray[np.datetime64]

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
_PRESSURE_COORDINATES = ("level", "isobaricInhPa", "pressure_level", "plev", "isobaricInPa")
_COORDINATE_ALIASES = {
    "lat": "latitude",
    "lon": "longitude",
    "valid_time": "time",
    "member": "number",
    "realization": "number",
}


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
    """Read a netCDF file or a Zarr store.

    Args:
        path: a ``.nc`` file or a Zarr directory.
        names: channels to read; all that the file holds when None.
        times: a label slice or the exact times to read; all when None.
        group: group inside the file.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: naming file, variable, what was found and what was expected.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    with open_dataset(path, group) as dataset:
        try:
            if times is not None:
                dataset = dataset.sel(time=times)
            return from_dataset(dataset, names)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: {error.args[0] if error.args else error}") from error


def open_dataset(path: Path, group: str | None = None) -> xr.Dataset:
    """Open a netCDF file or Zarr store lazily.

    Raises:
        ValueError: if it is neither.
    """
    try:
        if path.is_dir():
            dataset: xr.Dataset = xr.open_zarr(path, group=group, consolidated=None, chunks=None)
            return dataset
        return xr.open_dataset(path, group=group, engine="h5netcdf")
    except Exception as error:  # h5py, zarr and xarray raise a dozen types for a damaged file
        raise ValueError(f"{path}: expected a netCDF-4 file or Zarr store, found something else ({error})") from error


def from_dataset(dataset: xr.Dataset, names: Sequence[str] | None = None) -> State:
    """Check a data set with WeatherBench 2 names and stack its channels.

    Args:
        dataset: dims time, [number,] [level,] latitude, longitude in any order; a missing time becomes length 1.
        names: channel identifiers; all that are present, in table order, when None.

    Raises:
        ValueError: naming the variable, what was found and what was expected.
    """
    dataset = dataset.rename({old: new for old, new in _COORDINATE_ALIASES.items() if old in dataset.dims})
    for coordinate in ("latitude", "longitude"):
        if coordinate not in dataset.coords or dataset[coordinate].ndim != 1:
            raise ValueError(f"{coordinate}: no one-dimensional coordinate found, expected a regular or Gaussian grid")
    grid, rows, columns = LatLonGrid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values)
    wanted = channels(names) if names is not None else _present_channels(dataset)
    if not wanted:
        raise ValueError(
            f"no known variable: found {', '.join(map(str, dataset.data_vars))}, expected e.g. geopotential"
        )
    if "time" not in dataset.dims:
        stamp = dataset["time"].values if "time" in dataset.coords else np.datetime64("NaT")
        dataset = dataset.drop_vars("time", errors="ignore").expand_dims(time=[stamp])
    times = np.asarray(dataset["time"].values, dtype="datetime64[ns]")
    if times.size == 0:
        raise ValueError("time: found no times, expected at least one")
    if np.unique(times).size != times.size:
        raise ValueError("time: found duplicate times")
    order = (
        ("time", "number", "latitude", "longitude") if "number" in dataset.dims else ("time", "latitude", "longitude")
    )
    slices = []
    for item in wanted:
        values = _slice(dataset, item, order)[..., rows, :][..., columns]
        slices.append(_checked(values, item))
    stacked = np.stack(slices, axis=-3)
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


def write_netcdf(dataset: xr.Dataset, path: str | Path, attributes: Mapping[str, str] | None = None) -> None:
    """Write a compressed netCDF-4 file that appears whole or not at all."""
    encoding = {name: {"zlib": True, "complevel": 4, "shuffle": True} for name in dataset.data_vars}
    with replacing(path) as partial:
        dataset.assign_attrs(attributes or {}).to_netcdf(partial, engine="h5netcdf", encoding=encoding)


def _present_channels(dataset: xr.Dataset) -> tuple[Channel, ...]:
    found: list[Channel] = []
    for item in FIELDS:
        name = _variable_name(dataset, item)
        if name is None:
            continue
        if item.on_levels:
            levels, dimension = _levels(dataset[name])
            found += [Channel(item, level) for i, level in enumerate(levels) if _holds(dataset[name], dimension, i)]
        else:
            found.append(Channel(item, None))
    return tuple(found)


def _holds(array: xr.DataArray, dimension: str | None, index: int) -> bool:
    """Whether a level has any value: variables on different levels share one padded level axis in a file."""
    level = array if dimension is None else array.isel({dimension: index})
    first = level.isel(time=0) if "time" in level.dims else level
    return not bool(np.isnan(_values(first)).all())


def _variable_name(dataset: xr.Dataset, item: Field) -> str | None:
    heights = _GEOPOTENTIAL_HEIGHT_NAMES if item.id == "z" else ()
    names: tuple[str, ...] = (item.name, item.id, *item.aliases, *heights)
    return next((name for name in names if name in dataset.data_vars), None)


def _levels(array: xr.DataArray) -> tuple[list[int], str | None]:
    """Levels in hPa and the name of the level dimension (None for a single scalar level)."""
    for name in _PRESSURE_COORDINATES:
        if name in array.coords:
            values = np.atleast_1d(np.asarray(array[name].values, dtype=np.float64))
            in_pascal = str(array[name].attrs.get("units", "")).lower() == "pa" or values.max() > 1100
            levels = [round(v) for v in (values / 100 if in_pascal else values)]
            if len(set(levels)) != len(levels):
                raise ValueError(f"{array.name}: found duplicate levels {levels}")
            return levels, name if name in array.dims else None
    raise ValueError(
        f"{array.name}: found dimensions {array.dims}, expected a pressure coordinate such as 'level' in hPa"
    )


def _values(array: xr.DataArray) -> NDArray[np.floating[Any]]:
    try:
        return np.asarray(array.values)
    except Exception as error:  # h5py and the codecs of zarr raise a dozen types for a damaged chunk
        raise ValueError(f"{array.name}: found values that cannot be read ({' '.join(str(error).split())})") from error


def _slice(dataset: xr.Dataset, item: Channel, order: tuple[str, ...]) -> NDArray[np.float32]:
    """One channel with unit-converted values, dims in ``order``."""
    name = _variable_name(dataset, item.field)
    if name is None:
        raise ValueError(f"{item.field.name} is missing: found {', '.join(map(str, dataset.data_vars))}")
    array = dataset[name]
    if item.level_hpa is not None:
        levels, dimension = _levels(array)
        if item.level_hpa not in levels:
            raise ValueError(f"{item.field.name}: found levels {levels} hPa, expected {item.level_hpa} hPa among them")
        if dimension is not None:
            array = array.isel({dimension: levels.index(item.level_hpa)})
    unexpected = [str(d) for d in array.dims if d not in order]
    if unexpected:
        raise ValueError(f"{name}: found unexpected dimensions {', '.join(unexpected)}, expected {', '.join(order)}")
    array = array.expand_dims([d for d in order if d not in array.dims]).transpose(*order)
    values: NDArray[np.float32] = np.ascontiguousarray(_values(array), dtype=np.float32)
    unstated = "m" if name in _GEOPOTENTIAL_HEIGHT_NAMES else item.field.units
    units = str(dataset[name].attrs.get("units", unstated)).strip()
    if item.field.id == "z" and units.lower() in _GEOPOTENTIAL_HEIGHT_UNITS:
        return values * np.float32(STANDARD_GRAVITY)
    if units.lower() not in _UNIT_SPELLINGS[item.field.units]:
        raise ValueError(f"{name}: found units {units!r}, expected {item.field.units!r}")
    return values


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
