"""The general circulation model between analyses: it takes an analysis as a change of its own state.

An analysis knows the fields of a few pressure levels, a model state more. What a model started from it does not know (other
levels, what lies between those analysed, the physics' memory) it keeps from where it stood: a forecast of its own in a cycle, the
truth where forecasts from analyses of single dates are compared. The change of fields goes to sigma levels by
:mod:`genda.forecast.sigma`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from genda.forecast.nature import GcmState, NatureModel, optional
from genda.forecast.pressure import Array, SigmaFields, to_pressure_levels
from genda.forecast.sigma import to_sigma_levels
from genda.forecast.store import Run, days_done, dynamics_at, stream_at
from genda.variables import channels

NEEDED = ("t", "u", "v", "q")
ON_GROUND = ("t2m", "u10", "v10", "msl")


def model_levels(names: Sequence[str]) -> tuple[int, ...]:
    """Levels in hPa on which all that a model predicts is among these channels, as they come.

    Raises:
        ValueError: naming the channels that are missing for it.
    """
    levels = tuple(dict.fromkeys(c.level_hpa for c in channels(names) if c.level_hpa is not None))
    needed = [f"{field}{level}" for field in NEEDED for level in levels] + list(ON_GROUND)
    missing = [name for name in needed if name not in names]
    if missing or not levels:
        found = f"found no {', '.join(missing)}" if levels else "found none on a pressure level"
        raise ValueError(f"channels: {found}, expected all that a model's state is made of")
    return levels


def as_fields(values: Array, names: Sequence[str]) -> dict[str, Array]:
    """Channels (channel, lat, lon) by field: ``t u v q`` (level, lat, lon), ``t2m u10 v10 msl`` (lat, lon); others are left out."""
    by_name = dict(zip(names, values, strict=True))
    fields = {name: np.stack([by_name[f"{name}{level}"] for level in model_levels(names)]) for name in NEEDED}
    return fields | {name: by_name[name] for name in ON_GROUND}


def channels_at_end(fields: SigmaFields, names: Sequence[str]) -> Array:
    """Channels (channel, lat, lon) of the last instant."""
    levels = model_levels(names)
    found = to_pressure_levels(fields, [100.0 * level for level in levels])
    picked = (
        found[c.field.id][-1] if c.level_hpa is None else found[c.field.id][-1, levels.index(c.level_hpa)]
        for c in channels(names)
    )
    return np.stack(list(picked))


def advanced(
    model: NatureModel, state: GcmState, names: Sequence[str], days: int, strength: Array | None = None
) -> tuple[GcmState, Array]:
    """A state of one member some days later, and its channels then, (channel, lat, lon).

    Raises:
        FloatingPointError: naming the channels where the model did not get there.
    """
    for _ in range(days):
        state, (fields,) = model.advance(state, strength)
    values = channels_at_end(fields, names)
    lost = [name for name, field in zip(names, values, strict=True) if not np.isfinite(field).all()]
    if lost:
        raise FloatingPointError(f"the model's forecast of {', '.join(lost)} is not finite")
    return state, values


def changed(model: NatureModel, state: GcmState, change: Array, names: Sequence[str]) -> GcmState:
    """A state of one member after a change of its channels, (channel, lat, lon) in physical units."""
    dynamics = model.dynamics([leaf[0] for leaf in model.leaves(state.dynamics)])
    levels = [100.0 * level for level in model_levels(names)]
    on_sigma = to_sigma_levels(as_fields(change, names), levels, model.ground(dynamics))
    return model.with_dynamics(state, model.moved(dynamics, on_sigma))


def check_forecasts(run: Run, times: NDArray[np.datetime64], names: Sequence[str], days: int) -> None:
    """Refuse what :func:`forecast_from_truth` can't do or what can't be judged, before any work.

    Raises:
        ValueError: for channels that make no model state, or a truth that ends or jumps before a forecast's end.
        FileNotFoundError: where a modal state is missing.
        ModuleNotFoundError: where jcm is not installed.
    """
    optional("jcm")
    model_levels(names)
    for time in times:
        dynamics_at(run, time)
        stream, day = stream_at(run, time)
        if day + days > min(stream.days, days_done(run, stream)):
            found = f"found {min(stream.days, days_done(run, stream)) - day} days of the truth of {time}"
            raise ValueError(f"{run.out}: {found} after it, expected {days} to judge a forecast by")


def forecast_from_truth(run: Run, time: np.datetime64, change: Array, names: Sequence[str], days: int) -> Array:
    """Channels (channel, lat, lon) some days after a time of a nature run, had its truth been changed there.

    The truth's own model, with what the stored modal state lacks: its first step has no radiation of the step before.

    Args:
        run: with its modal states.
        time: 00 UTC.
        change: of the truth's channels, e.g. analysis minus truth, physical units, shape (channel, lat, lon).
        names: of the channels.
        days: to integrate.

    Raises:
        FileNotFoundError: where the run has no modal state of that time.
        ModuleNotFoundError: where jcm is not installed.
    """
    model = single_model(run.grid)
    start = model.from_dynamics([model.dynamics(dynamics_at(run, time))], [time])
    return advanced(model, changed(model, start, change, names), names, days)[1]


@lru_cache(maxsize=1)
def single_model(grid: str) -> NatureModel:
    """A model of one member, compiled once for all forecasts of a process."""
    return NatureModel(grid)
