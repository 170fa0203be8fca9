"""A genda model as a data assimilation model of Earth2Studio, matched by shape: the package is not needed here.

Earth2Studio (NVIDIA, Apache-2.0) asks of its ``AssimilationModel`` (``earth2studio/models/da/base.py``) the methods below.
Observations come as a long DataFrame whose ``attrs`` hold the request (``request_time``, perhaps ``request_lead_time``), analyses
go back as a tuple of DataArrays (ensemble, time, variable, lat, lon). Names are Earth2Studio's: ``u10m`` for ``u10``.

    model = Earth2StudioModel(genda.load("embedded"), members=16)
    generator = model.create_generator()
    generator.send(None)
    for table in tables:
        (analysis,) = generator.send(table)

A prior of background errors takes the background first: ``model(background, table)``, ``generator.send((background, table))``.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from genda.assimilation import UNSAMPLED, assimilate
from genda.checkpoint import Model
from genda.foreign_climate import foreign_climate
from genda.grid import LatLonGrid
from genda.latent_model import LatentModel
from genda.observations.flags import Flag
from genda.observations.table import DTYPES, identified
from genda.sources import point_source
from genda.state import State
from genda.usable import usable_observations, used_of
from genda.variables import channel, field

Coordinates = OrderedDict[str, NDArray[Any]]
"""Dimensions of a DataArray, or columns of a DataFrame, with their values (empty where any will do)."""
Input = pd.DataFrame | xr.DataArray | None

log = logging.getLogger(__name__)

_THEIRS = {"u10": "u10m", "v10": "v10m"}
_COLUMNS = {"lat": "latitude", "lon": "longitude", "pres": "pressure", "elev": "elevation"}
_REQUIRED = ("time", "lat", "lon", "observation", "variable")
_FAULTS = (Flag.MISSING, Flag.BOUNDS, Flag.OPERATOR_FAILED, Flag.BACKGROUND)
"""Flags that a sender should hear of; observations of other times and levels, and doubles, are nothing out of the ordinary."""


class Earth2StudioModel:
    """See the module.

    Args:
        model: from :func:`genda.load`.
        members: of the ensemble; a method that samples nothing gives one all the same.
        seed: member i of a time depends on (seed, time, i) alone.
        window_hours: half-width of the observation window about each requested time.
        settings: further ones of :func:`genda.assimilate`, such as ``method``.
    """

    def __init__(
        self,
        model: Model | LatentModel,
        members: int = 16,
        seed: int = 0,
        window_hours: float = 3.0,
        **settings: Any,
    ) -> None:
        self._model, self._seed, self._settings = model, seed, settings
        self._members = 1 if settings.get("method") in UNSAMPLED else members
        self._hours = window_hours

    def __call__(self, *args: Input) -> tuple[xr.DataArray, ...]:
        """Analyses at the requested times.

        Args:
            args: the table of observations, after the background where the prior is one of background errors. For none, an
                empty table with its request, or None where a background tells the time.

        Raises:
            ValueError: for a table without request or columns, or a background that does not fit.
        """
        background, table = self._inputs(args)
        times = _requested(background, table)
        analyses = [self._analysed(time, background, table) for time in times]
        (coordinates,) = self.output_coords(self.input_coords(), request_time=times)
        coordinates["ensemble"] = np.arange(len(analyses[0]))
        return (xr.DataArray(np.stack(analyses, axis=1), dims=list(coordinates), coords=coordinates),)

    def create_generator(self) -> Generator[tuple[xr.DataArray, ...] | None, Any, None]:
        """Send None first, then what :meth:`__call__` takes, a tuple where it takes two; each answer is an analysis."""
        answer: tuple[xr.DataArray, ...] | None = None
        while True:
            sent = yield answer
            answer = self(*sent) if isinstance(sent, tuple) else self(sent)

    def init_coords(self) -> tuple[Coordinates, ...] | None:
        """None: every analysis stands alone."""
        return None

    def input_coords(self) -> tuple[Coordinates, ...]:
        """What each argument holds: the background where the prior needs one, and the table."""
        variables = dict.fromkeys(c.field.id for c in map(channel, self._model.channels))
        names = [_THEIRS.get(name, name) for name in (*variables, *self._model.channels)]
        table = OrderedDict(
            time=np.empty(0, dtype="datetime64[ns]"),
            lat=np.empty(0, dtype=np.float32),
            lon=np.empty(0, dtype=np.float32),
            pres=np.empty(0, dtype=np.float32),
            observation=np.empty(0, dtype=np.float32),
            variable=np.array(list(dict.fromkeys(names))),
        )
        if not isinstance(self._model, LatentModel):
            return (table,)
        return OrderedDict(time=np.empty(0, dtype="datetime64[ns]"), **self._place()), table

    def output_coords(
        self, input_coords: tuple[Coordinates, ...], request_time: NDArray[np.datetime64] | None = None, **request: Any
    ) -> tuple[Coordinates, ...]:
        """Coordinates of the analysis of a request.

        Raises:
            ValueError: for another number of inputs than :meth:`input_coords` gives.
        """
        if len(input_coords) != len(self.input_coords()):
            raise ValueError(f"input_coords: found {len(input_coords)}, expected {len(self.input_coords())}")
        times = np.empty(0, dtype="datetime64[ns]") if request_time is None else np.atleast_1d(request_time)
        return (OrderedDict(ensemble=np.arange(self._members), time=times, **self._place()),)

    def to(self, device: Any) -> Earth2StudioModel:
        """Analyse on another device."""
        self._settings["device"] = str(device)
        return self

    def _place(self) -> dict[str, NDArray[Any]]:
        grid = self._model.grid
        names = np.array([_THEIRS.get(name, name) for name in self._model.channels])
        return {"variable": names, "lat": np.array(grid.latitude), "lon": np.array(grid.longitude)}

    def _inputs(self, args: tuple[Input, ...]) -> tuple[xr.DataArray | None, pd.DataFrame | None]:
        expected = len(self.input_coords())
        if len(args) != expected:
            raise ValueError(f"arguments: found {len(args)}, expected {'background, ' * (expected - 1)}observations")
        background, table = (None, args[0]) if expected == 1 else args
        if background is not None and not isinstance(background, xr.DataArray):
            raise ValueError(f"background: found {type(background).__name__}, expected a DataArray")
        if table is not None and not isinstance(table, pd.DataFrame):
            raise ValueError(f"observations: found {type(table).__name__}, expected a DataFrame")
        return background, table

    def _analysed(
        self, time: np.datetime64, background: xr.DataArray | None, table: pd.DataFrame | None
    ) -> NDArray[np.float32]:
        """Members at a time, (member, channel, lat, lon)."""
        state = None if background is None else _state(background, time)
        sources = []
        if table is not None and len(table):
            checked, _ = usable_observations(self._model, _table(table), time, self._hours)
            used = checked[checked["quality"] == Flag.PASS]
            level = logging.WARNING if checked["quality"].isin(_FAULTS).any() else logging.INFO
            log.log(level, "%s: %s", np.datetime_as_string(time, "m"), used_of(checked))
            if foreign := foreign_climate(self._model, checked, time):
                log.warning("%s", foreign)
            sources = [point_source(self._model, used, time)] if len(used) else []
        analysis = assimilate(
            self._model, sources, time, members=self._members, seed=self._seed, background=state, **self._settings
        )
        return np.asarray(analysis.members.values[0].numpy())


def _requested(background: xr.DataArray | None, table: pd.DataFrame | None) -> NDArray[np.datetime64]:
    """Valid times asked for: those of the request with its lead times, else those of the background with its lead."""
    attributes: Mapping[Any, Any] = {} if table is None else table.attrs
    if "request_time" in attributes:
        times = np.atleast_1d(np.asarray(attributes["request_time"], dtype="datetime64[ns]"))
        leads = attributes.get("request_lead_time")
        leads = np.zeros(1, dtype="timedelta64[ns]") if leads is None else np.atleast_1d(np.asarray(leads))
        return np.asarray((times[:, None] + leads.astype("timedelta64[ns]")).ravel())
    if background is not None:
        return _valid_times(background)
    found = "None" if table is None else "no attribute 'request_time'"
    raise ValueError(f"observations: found {found}, expected a table, if empty, with the times as 'request_time'")


def _valid_times(background: xr.DataArray) -> NDArray[np.datetime64]:
    """Times of the run plus the lead, of which there is one at most.

    Raises:
        ValueError: for several leads.
    """
    times = np.atleast_1d(background["time"].values.astype("datetime64[ns]"))
    if "lead_time" not in background.coords:
        return times
    leads = np.atleast_1d(background["lead_time"].values.astype("timedelta64[ns]"))
    if leads.size != 1:
        raise ValueError(f"background: found {leads.size} lead times, expected one")
    return np.asarray(times + leads)


def _table(table: pd.DataFrame) -> pd.DataFrame:
    """Earth2Studio's columns as those of :mod:`genda.observations.table`; variables may be fields (t) or channels (t850).

    What is at no place on Earth is flagged, what is of an unknown variable left out and counted.

    Raises:
        ValueError: for missing columns.
    """
    missing = [name for name in _REQUIRED if name not in table.columns]
    if missing:
        raise ValueError(f"observations: found no column {', '.join(missing)}, expected {', '.join(_REQUIRED)}")
    found = table.reset_index(drop=True).rename(columns=_COLUMNS)
    pressure = found["pressure"].astype(float) if "pressure" in found else pd.Series(np.nan, found.index)
    parsed = {name: _field_and_level(str(name)) for name in found["variable"].unique()}
    unknown = found["variable"].map({name: item is None for name, item in parsed.items()}).astype(bool)
    if unknown.any():
        names = ", ".join(sorted({str(name) for name in found["variable"][unknown]}))
        log.warning(
            "observations: %d of %d left out, of variables that no model knows: %s", unknown.sum(), len(found), names
        )
    found, pressure = found[~unknown], pressure[~unknown]
    identifiers = {name: item[0] for name, item in parsed.items() if item is not None}
    levels = {name: item[1] for name, item in parsed.items() if item is not None}
    given = found["variable"].map(levels).astype(float)
    for name, value in {"elevation": np.nan, "obs_error": np.nan, "station": "", "source": "earth2studio"}.items():
        found[name] = found[name] if name in found else pd.Series([value] * len(found), found.index)
    latitude, longitude = found["latitude"].astype(float), found["longitude"].astype(float)
    somewhere = latitude.between(-90.0, 90.0) & np.isfinite(longitude)
    complete = found.assign(
        longitude=np.mod(longitude, 360.0),
        pressure=given.where(given.notna(), pressure),
        variable=found["variable"].map(identifiers),
        quality=np.where(somewhere, Flag.PASS, Flag.BOUNDS),
    )
    return identified(complete[list(DTYPES)].astype(DTYPES))


def _field_and_level(name: str) -> tuple[str, float | None] | None:
    """Field identifier and pressure in Pa, where the name tells it, of a field or channel; None for neither."""
    with suppress(ValueError):
        parsed = channel(name)
        return parsed.field.id, parsed.pressure
    with suppress(ValueError):
        return field(name).id, None
    return None


def _state(background: xr.DataArray, time: np.datetime64) -> State:
    """A DataArray ([ensemble,] time, [lead_time,] variable, lat, lon) at a valid time.

    Raises:
        ValueError: for other dimensions, or a time it does not hold.
    """
    members = "ensemble" if "ensemble" in background.dims else None
    times = _valid_times(background)
    if "lead_time" in background.dims:
        background = background.isel(lead_time=0)
    order = [name for name in ("time", members, "variable", "lat", "lon") if name is not None]
    if set(background.dims) != set(order):
        raise ValueError(f"background: found dimensions {background.dims}, expected {', '.join(order)}")
    if time not in times:
        raise ValueError(f"background: found times {times[0]} to {times[-1]}, expected {time} among them")
    chosen = background.transpose(*order).isel(time=np.flatnonzero(times == time)[:1])
    grid, rows, columns = LatLonGrid.from_coordinates(chosen["lat"].values, chosen["lon"].values)
    values = np.asarray(chosen.values, dtype=np.float32)[..., rows, :][..., columns]
    names = tuple(channel(str(name)).id for name in chosen["variable"].values)
    return State(torch.from_numpy(np.ascontiguousarray(values)), names, grid, times[times == time][:1])
