"""The shipped errors: of training backgrounds, and of ensembles about backgrounds of the sample case, small enough to carry along.

A field on the model's own grid is its spherical harmonics up to the model's truncation, and a little. Each coefficient is
rounded to a quarter of the root mean square of its channel and degree, which costs half a percent of the variance and leaves
about four bits a number: a state of 29 channels at T31 takes 20 kB. Together with what lies beyond the harmonics, 0.5 % of an
error's variance is lost in z, 1 % in t and v, 4 % in u, 8 % in q at 200 hPa.

netCDF: ``errors`` (lead, pair, …) and ``ensemble`` (time, member, …) hold integers in units of ``step`` (kind, channel,
degree); their last dimension is the coefficients of one degree, orders ascending, real and imaginary part in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from genda.atomic import replacing
from genda.forecast.backgrounds import scattered
from genda.forecast.climate import open_backgrounds, open_ensembles, with_truth
from genda.forecast.sample_case import open_sample_case
from genda.grid import LatLonGrid
from genda.sphere import SphericalTransform, triangular_limit
from genda.state import from_dataset

EXTRA_DEGREES = 2
"""Beyond the model's truncation: winds made of its vorticity and divergence reach one degree further."""
STEP = 0.25
"""Rounding step in units of the root mean square of a channel and degree."""


@dataclass(frozen=True)
class ErrorFile:
    """The file in memory, physical units."""

    dataset: xr.Dataset
    transform: SphericalTransform

    @property
    def ensemble_times(self) -> NDArray[np.datetime64]:
        return np.asarray(self.dataset["time"].values)

    def errors(self, lead: int) -> Tensor:
        """Background minus truth, shape (pair, channel, lat, lon).

        Raises:
            ValueError: for a lead that is not there.
        """
        leads = self.dataset["lead"].values.tolist()
        if lead not in leads:
            raise ValueError(f"lead: found {lead} h, expected one of {', '.join(map(str, leads))} h")
        return self._fields(self.dataset["errors"].sel(lead=lead).values, f"lead {lead}")

    def ensemble(self, time: np.datetime64) -> Tensor:
        """Members minus the background at a date, shape (member, channel, lat, lon)."""
        return self._fields(self.dataset["ensemble"].sel(time=time).values, "ensemble")

    def _fields(self, integers: NDArray[np.int8], kind: str) -> Tensor:
        step = self.dataset["step"].sel(kind=kind).values
        return _synthesised(torch.as_tensor(integers.astype(np.float32) * step[..., None]), self.transform)


def write_errors(
    nature: Path, case: Path, out: Path, pairs: int = 100, ensembles: Path | None = None, dates: int = 4
) -> None:
    """Cut the file out of a nature run; it appears whole or not at all.

    Args:
        nature: the store; its training backgrounds are used.
        case: the sample case whose backgrounds the ensembles are about.
        out: the netCDF file to write.
        pairs: training backgrounds, evenly chosen.
        ensembles: store with ensembles at the dates of ``case``; ``nature`` where None.
        dates: of ``case``, spread over it, for which ensembles are kept.

    Raises:
        FileNotFoundError, ValueError: where the stores lack what is asked for.
    """
    truth, background = with_truth(nature, open_backgrounds(nature, "train"))
    if not 2 <= pairs <= background.time.size:
        raise ValueError(
            f"pairs: found {pairs}, expected 2 to {background.time.size}, the finished training backgrounds"
        )
    chosen = np.linspace(0, background.time.size - 1, pairs).round().astype(int)
    truth, background = truth.isel(time=chosen), background.isel(time=chosen)
    true = from_dataset(truth)
    transform = SphericalTransform(true.grid, triangular_limit(true.grid) + EXTRA_DEGREES)
    sample = open_sample_case(case)
    times = sample.truth.time.values[scattered(range(sample.truth.time.size))[:dates]]
    stored = open_ensembles(ensembles or nature, "test")
    missing = np.setdiff1d(times, stored.time.values)
    if missing.size:
        raise ValueError(f"{ensembles or nature}: found no ensemble at {missing[0]}, expected {dates} dates of {case}")
    kinds, steps = [], []
    packed: dict[str, list[NDArray[np.int8]]] = {"errors": [], "ensemble": []}

    def pack(name: str, kind: str, fields: list[Tensor]) -> None:
        coefficients = torch.stack([_analysed(f, transform) for f in fields])
        size = 2 * torch.arange(transform.lmax) + 2.0
        step = STEP * (coefficients.pow(2).mean(dim=(0, 1)).sum(dim=-1) / size).sqrt()
        integers = (coefficients / step.unsqueeze(-1).clamp(min=1e-30)).round().clamp(-127, 127)
        kinds.append(kind)
        steps.append(step.numpy())
        packed[name].append(integers.to(torch.int8).numpy())

    leads = [int(lead) for lead in background.lead.values]
    for lead in leads:
        forecast = from_dataset(background.sel(lead=lead, drop=True))
        pack("errors", f"lead {lead}", [forecast.values - true.values])
    members = []
    for time in times:
        about = from_dataset(sample.background.sel(lead=leads[0], drop=True).sel(time=[time]))
        members.append(members_at(stored, time) - about.values)
    pack("ensemble", "ensemble", members)
    dims = ("channel", "degree", "coefficient")
    dataset = xr.Dataset(
        {
            "errors": (("lead", "pair", *dims), np.concatenate(packed["errors"])),
            "ensemble": (("time", "member", *dims), packed["ensemble"][0]),
            "step": (("kind", "channel", "degree"), np.stack(steps).astype(np.float32)),
        },
        coords={
            "lead": ("lead", np.array(leads, dtype=np.int32), {"units": "h"}),
            "pair": ("pair", background.time.values, {"long_name": "verification time of the training background"}),
            "time": ("time", times),
            "kind": ("kind", np.array(kinds, dtype=object)),
            "channel": ("channel", np.array(true.channels, dtype=object)),
            "latitude": ("latitude", np.array(true.grid.latitude), {"units": "degrees_north"}),
            "longitude": ("longitude", np.array(true.grid.longitude), {"units": "degrees_east"}),
        },
        attrs={
            "title": "genda background errors and ensemble deviations, spherical-harmonic coefficients",
            "source": truth.attrs["source"],
            "rounding": f"{STEP} of the root mean square of each channel and degree",
        },
    )
    deflate: dict[str, Any] = {"zlib": True, "complevel": 9, "shuffle": False}
    hours: dict[str, Any] = {"units": "hours since 1970-01-01", "dtype": "int64"}
    encoding = {"errors": deflate, "ensemble": deflate, "pair": hours, "time": hours}
    with replacing(out) as partial:
        dataset.to_netcdf(partial, engine="h5netcdf", encoding=encoding)


def members_at(ensembles: xr.Dataset, time: np.datetime64) -> Tensor:
    """Members of a nature run's ensemble at a date, physical units, shape (member, channel, lat, lon)."""
    members = ensembles.sel(time=time, drop=True).rename(member="time")
    return from_dataset(members.assign_coords(time=time + members["time"].values.astype("timedelta64[h]"))).values


@lru_cache(maxsize=2)
def open_errors(path: Path) -> ErrorFile:
    """Read the file.

    Raises:
        FileNotFoundError: where there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of errors")
    with xr.open_dataset(path, engine="h5netcdf") as file:
        dataset = file.load()
    grid, _, _ = LatLonGrid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values)
    return ErrorFile(dataset, SphericalTransform(grid, dataset.sizes["degree"]))


def _analysed(fields: Tensor, transform: SphericalTransform) -> Tensor:
    """Fields (sample, channel, lat, lon) to coefficients (sample, channel, degree, 2 · order + part)."""
    waves = transform.waves(fields.float())  # (m, l, 2, sample, channel)
    return waves.permute(3, 4, 1, 0, 2).flatten(-2)


def _synthesised(coefficients: Tensor, transform: SphericalTransform) -> Tensor:
    parts = coefficients.view(*coefficients.shape[:-1], transform.lmax, 2)
    return transform.fields(parts.permute(3, 2, 4, 0, 1).contiguous())
