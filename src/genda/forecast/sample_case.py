"""The sample case: a small netCDF file cut from a nature run, enough for the demo, the tests and quick benchmarks.

Dates are spread evenly over the test year's background dates, so that all seasons occur. One variable per channel:

- ``z500`` … ``msl`` (time, latitude, longitude): the truth,
- ``z500_background`` … (lead, time, latitude, longitude): the two backgrounds,
- ``z500_mean``, ``z500_std`` … (latitude, longitude): mean and standard deviation over the training years,
- ``transient_std`` (channel): area-mean standard deviation about the monthly climatology of the training years,
- ``geopotential_at_surface``, ``land_sea_mask`` (latitude, longitude).

Fields are packed as CF 16-bit integers in steps of 0.003 transient standard deviations, so that the rounding error's
root mean square is 0.0009 of it (and never more than 0.0015), then shuffled and deflated: 24 dates on 48 × 96 points
fit in 12 MiB. Channels have scales of their own, hence a variable each.
:func:`open_sample_case` puts the channels together again under their WeatherBench 2 names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genda.forecast.climate import channel_values, monthly_mean, open_backgrounds, open_nature_run, with_truth
from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_CHANNELS, FIELDS, channel

if TYPE_CHECKING:
    import xarray as xr

STEP = 3.0e-3
"""Packing step as a fraction of a channel's transient standard deviation."""
_STATIC = ("geopotential_at_surface", "land_sea_mask")


@dataclass(frozen=True)
class SampleCase:
    """The sample case under WeatherBench 2 names, in memory.

    Attributes:
        truth: dimensions (time, level, latitude, longitude).
        background: dimensions (lead, time, level, latitude, longitude), lead in hours.
        mean, std: climatology of the training years, dimensions (level, latitude, longitude).
        transient_std: one number per channel identifier, SI units.
        static: orography and land–sea mask.
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
        ValueError: where the store lacks that many finished test dates, or a channel's range does not fit 16 bits.
    """
    import xarray as xr

    _, background = with_truth(nature, open_backgrounds(nature, "test"))
    if not 1 <= dates <= background.time.size:
        raise ValueError(f"dates: found {dates}, expected 1 to {background.time.size}, the finished test dates")
    chosen = np.linspace(0, background.time.size - 1, dates).round().astype(int)
    background = background.isel(time=chosen)
    truth, _ = with_truth(nature, background)
    training = open_nature_run(nature, "train").isel(time=slice(None, None, climatology_stride))
    grid, _, _ = LatLonGrid.from_coordinates(truth.latitude.values, truth.longitude.values)
    area = grid.area_weights / grid.area_weights.sum()
    month = training.time.dt.month.values
    variables: dict[str, Any] = {name: truth[name].load() for name in _STATIC}
    encoding: dict[str, Any] = {name: {"zlib": True, "shuffle": True, "complevel": 9} for name in _STATIC}
    transient = []
    horizontal = ("latitude", "longitude")
    for name in EMBEDDED_CHANNELS:
        climate = channel_values(training, name)
        anomalies = climate - monthly_mean(climate, month)
        transient.append(float(np.sqrt(area @ anomalies.var(axis=0).mean(axis=-1))))
        field = channel(name).field
        attributes = {"units": field.units, "standard_name": field.standard_name}
        mean = climate.mean(axis=0)
        backgrounds = np.moveaxis(channel_values(background, name), 1, 0)
        parts = {
            name: (("time", *horizontal), channel_values(truth, name)),
            f"{name}_background": (("lead", "time", *horizontal), backgrounds),
            f"{name}_mean": (horizontal, mean),
            f"{name}_std": (horizontal, climate.std(axis=0)),
        }
        for key, (dims, values) in parts.items():
            variables[key] = (dims, values, attributes)
            encoding[key] = packing(values, STEP * transient[-1], key)
    variables["transient_std"] = (
        "channel", np.array(transient), {"long_name": "area-mean standard deviation about the monthly climatology"}
    )  # fmt: skip
    dataset = xr.Dataset(
        variables,
        coords={
            "time": truth.time.values,
            "lead": ("lead", background.lead.values, {"units": "h", "long_name": "lead as played"}),
            "channel": np.array(EMBEDDED_CHANNELS, dtype=object),
            "latitude": truth.latitude,
            "longitude": truth.longitude,
        },
        attrs={
            **{name: truth.attrs[name] for name in ("Conventions", "source", "grid", "seed", "training_years")},
            "title": "genda sample case: truth, two backgrounds and climatology at dates of the nature run's test year",
            "background_variant": background.attrs["variant"],
            "packing": f"16-bit integers in steps of {STEP} transient standard deviations",
        },
    )
    dataset = dataset.drop_vars([n for n in ("split", "stream", "written", "source_day") if n in dataset.variables])
    encoding["time"] = {"units": "hours since 1970-01-01", "dtype": "int64"}
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        dataset.to_netcdf(partial, engine="h5netcdf", encoding=encoding)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def packing(values: NDArray[np.float64], step: float, name: str) -> dict[str, Any]:
    """xarray encoding that packs values as 16-bit integers in the given step.

    Raises:
        ValueError: where the range does not fit, naming the variable.
    """
    middle = 0.5 * (float(values.min()) + float(values.max()))
    steps = (float(values.max()) - middle) / step
    if not steps < 32_767:
        raise ValueError(f"{name}: found a range of {2 * steps:.0f} steps, expected at most 65,533 for 16 bits")
    return {
        "dtype": "int16",
        "scale_factor": step,
        "add_offset": middle,
        "_FillValue": np.int16(-32_768),
        "zlib": True,
        "shuffle": True,
        "complevel": 9,
    }


def open_sample_case(path: Path) -> SampleCase:
    """Read a sample case.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the file lacks a channel.
    """
    import xarray as xr

    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such sample case")
    with xr.open_dataset(path, engine="h5netcdf") as file:
        flat = file.load()
    missing = [name for name in EMBEDDED_CHANNELS if name not in flat]
    if missing:
        raise ValueError(f"{path}: found no {', '.join(missing)}, expected the {len(EMBEDDED_CHANNELS)} channels")
    transient = dict(zip((str(name) for name in flat.channel.values), flat.transient_std.values.tolist(), strict=True))
    return SampleCase(
        truth=_stack_levels(flat, ""),
        background=_stack_levels(flat, "_background"),
        mean=_stack_levels(flat, "_mean"),
        std=_stack_levels(flat, "_std"),
        transient_std=transient,
        static=flat[list(_STATIC)],
    )


def _stack_levels(flat: xr.Dataset, suffix: str) -> xr.Dataset:
    """Channels with this suffix as a dataset of WeatherBench 2 variables with a level dimension before latitude."""
    import xarray as xr

    out = {}
    for field in FIELDS:
        levels = [c.level_hpa for c in map(channel, EMBEDDED_CHANNELS) if c.field is field]
        if levels == [None]:
            out[field.name] = flat[f"{field.id}{suffix}"].astype(np.float32)
            continue
        axis = xr.DataArray(np.array(levels), dims="level", attrs={"units": "hPa", "positive": "down"}, name="level")
        slices = [flat[f"{field.id}{level}{suffix}"].astype(np.float32) for level in levels]
        out[field.name] = xr.concat(slices, dim=axis).transpose(..., "level", "latitude", "longitude")
        out[field.name].attrs = {"units": field.units, "standard_name": field.standard_name}
    return xr.Dataset(out)
