"""The sample case: a small netCDF file cut from a nature run, enough for the demo, the tests and quick benchmarks.

Dates are spread evenly over the test year's background dates, so that all seasons occur. WeatherBench 2 names and CF
attributes as in the nature run itself, in netCDF groups, each read by ``xarray.open_dataset(path, group=…)``:

- the root: the truth (time, level, latitude, longitude), ``geopotential_at_surface``, ``land_sea_mask``,
- ``background``: (time, lead, level, latitude, longitude), lead in hours,
- ``mean`` and ``std``: (level, latitude, longitude), mean and standard deviation in time over the training years, and
  in ``std`` ``transient_std`` (channel), the area mean about the monthly climatology.

A channel's values are rounded to multiples of a step of at most 0.00345 of its transient standard deviation, so that
the root mean square rounding error, the step over √12, is below a thousandth of it. The levels of a field share one CF
scale factor, the smallest step, and the others are powers of two of it: low bits that are zero cost nothing once the
integers are shuffled and deflated, and 24 dates on 48 × 96 points fit in 12 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genda.atomic import replacing
from genda.forecast.climate import each_channel, open_backgrounds, open_nature_run, transient_variance, with_truth
from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS, FIELDS, Channel, Field

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]
ROUNDING = 1.0e-3
"""Largest root mean square rounding error, as a fraction of a channel's transient standard deviation."""


@dataclass(frozen=True)
class SampleCase:
    """The sample case in memory.

    Attributes:
        truth: WeatherBench 2 names, dimensions (time, level, latitude, longitude).
        background: dimensions (time, lead, level, latitude, longitude), lead in hours.
        mean, std: climatology of the training years, dimensions (level, latitude, longitude).
        transient_std: one number per channel identifier, SI units.
        static: ``geopotential_at_surface`` and ``land_sea_mask``.
    """

    truth: xr.Dataset
    background: xr.Dataset
    mean: xr.Dataset
    std: xr.Dataset
    transient_std: dict[str, float]
    static: xr.Dataset


def write_sample_case(nature: Path, out: Path, dates: int = 24, climatology_stride: int = 1) -> None:
    """Cut the sample case from a finished nature run; the file appears whole or not at all.

    Args:
        nature: the store.
        out: the netCDF file to write.
        dates: test dates wanted.
        climatology_stride: use every n-th training frame for the climatology.

    Raises:
        FileNotFoundError: where there is no store.
        ValueError: where the store lacks that many finished test dates or any training frame.
    """
    truth, background = with_truth(nature, open_backgrounds(nature, "test"))
    if not 1 <= dates <= background.time.size:
        raise ValueError(f"dates: found {dates}, expected 1 to {background.time.size}, the finished test dates")
    chosen = np.linspace(0, background.time.size - 1, dates).round().astype(int)
    truth, background = truth.isel(time=chosen).load(), background.isel(time=chosen).load()
    training = open_nature_run(nature, "train").isel(time=slice(None, None, climatology_stride))
    mean, std, transient = _climatology(training)
    steps = {field.id: _steps(field, transient) for field in FIELDS}
    names = [field.name for field in FIELDS]
    root = truth[[*names, *_STATIC]].drop_vars(["split", "stream", "written"])
    root.attrs = {
        **{name: truth.attrs[name] for name in ("Conventions", "source", "grid", "seed")},
        "title": "genda sample case: truth, two backgrounds and climatology at dates of the nature run's test year",
        "climatology": f"{training.time.size} training frames, {str(training.time.values[0])[:10]} to "
        f"{str(training.time.values[-1])[:10]}",
        "rounding": f"root mean square at most {ROUNDING} of each channel's transient standard deviation",
    }
    groups = {
        "": root,
        "background": background[names].drop_vars(["split", "source_day", "written"]),
        "mean": mean,
        "std": std.assign(transient_std=("channel", [transient[name] for name in EMBEDDED_CHANNELS])),
    }
    groups["std"] = groups["std"].assign_coords(channel=np.array(EMBEDDED_CHANNELS, dtype=object))
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        for number, (group, dataset) in enumerate(groups.items()):
            packed = [_packed(dataset[field.name], steps[field.id]) for field in FIELDS]
            encoding: dict[str, Any] = {field.name: how for field, (_, how) in zip(FIELDS, packed, strict=True)} | {
                name: _DEFLATE for name in _STATIC if name in dataset
            }
            if "time" in dataset:
                encoding["time"] = {"units": "hours since 1970-01-01", "dtype": "int64"}
            rounded = dataset.assign({field.name: values for field, (values, _) in zip(FIELDS, packed, strict=True)})
            rounded.to_netcdf(
                partial, mode="a" if number else "w", group=group or None, engine="h5netcdf", encoding=encoding
            )


def open_sample_case(path: Path) -> SampleCase:
    """Read a sample case.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the file lacks a field.
    """
    import xarray as xr

    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such sample case")
    found = {}
    for group in ("", "background", "mean", "std"):
        with xr.open_dataset(path, group=group or None, engine="h5netcdf") as file:
            found[group] = file.load()
    missing = [field.name for field in FIELDS if any(field.name not in dataset for dataset in found.values())]
    if missing:
        raise ValueError(f"{path}: found no {', '.join(missing)}, expected the {len(EMBEDDED_CHANNELS)} channels")
    names = [field.name for field in FIELDS]
    transient = found["std"].transient_std
    return SampleCase(
        truth=found[""][names].astype(np.float32),
        background=found["background"][names].astype(np.float32),
        mean=found["mean"][names].astype(np.float32),
        std=found["std"][names].astype(np.float32),
        transient_std={str(n): float(v) for n, v in zip(transient.channel.values, transient.values, strict=True)},
        static=found[""][list(_STATIC)],
    )


_STATIC = ("geopotential_at_surface", "land_sea_mask")
_DEFLATE = {"zlib": True, "shuffle": True, "complevel": 9}


def _climatology(training: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset, dict[str, float]]:
    """Mean and standard deviation in time, as datasets, and the transient standard deviation of each channel."""
    import xarray as xr

    grid, _, _ = LatLonGrid.from_coordinates(training.latitude.values, training.longitude.values)
    area = grid.area_weights / grid.area_weights.sum()
    month = training.time.dt.month.values
    transient: dict[str, float] = {}
    maps: dict[str, dict[str, list[Array]]] = {kind: {field.id: [] for field in FIELDS} for kind in ("mean", "std")}
    for item, values in each_channel(training):
        maps["mean"][item.field.id].append(values.mean(axis=0, dtype=np.float64))
        maps["std"][item.field.id].append(values.std(axis=0, dtype=np.float64))
        transient[item.id] = float(np.sqrt(area @ transient_variance(values, month).mean(axis=-1)))
    datasets = {}
    for kind, by_field in maps.items():
        datasets[kind] = xr.Dataset(coords={name: training[name] for name in ("level", "latitude", "longitude")})
        for field in FIELDS:
            dims = ("level", "latitude", "longitude") if field.on_levels else ("latitude", "longitude")
            stacked = np.stack(by_field[field.id]) if field.on_levels else by_field[field.id][0]
            datasets[kind][field.name] = (dims, stacked, {"units": field.units, "standard_name": field.standard_name})
    return datasets["mean"], datasets["std"], transient


def _channels(field: Field) -> list[Channel]:
    return [Channel(field, level) for level in EMBEDDED_LEVELS] if field.on_levels else [Channel(field, None)]


def _steps(field: Field, transient: dict[str, float]) -> Array:
    """Rounding step of each level: powers of two of the smallest."""
    wanted = np.array([3.45 * ROUNDING * transient[item.id] for item in _channels(field)])
    return np.asarray(wanted.min() * 2.0 ** np.floor(np.log2(wanted / wanted.min())))


def _packed(array: xr.DataArray, steps: Array) -> tuple[xr.DataArray, dict[str, Any]]:
    """Values rounded to multiples of their level's step, and the encoding that stores them as integers."""
    by_level = steps[:, None, None] if array.ndim > 2 and "level" in array.dims else steps[0]
    values = np.asarray(array.values, dtype=np.float64)
    offset = float(np.floor(values.min() / steps.max()) * steps.max())
    rounded = array.copy(data=offset + np.round((values - offset) / by_level) * by_level)
    return rounded, {
        "dtype": "int32",
        "scale_factor": float(steps.min()),
        "add_offset": offset,
        "_FillValue": np.int32(-(2**31)),
        "chunksizes": tuple(1 if dim == "level" else size for dim, size in array.sizes.items()),
        **_DEFLATE,
    }
