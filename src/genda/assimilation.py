"""From a model, a background and sources of observations to an analysis: an ensemble in physical units.

Here and in :mod:`genda.sources` physical units become normalised ones and back; methods see a :class:`genda.problem.Problem`.
"""

from __future__ import annotations

import math
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from genda import latent_methods, state_methods
from genda.assets import model_directory
from genda.checkpoint import Model, StateModel, load_model
from genda.diffusion.noise import derived_seed
from genda.diffusion.sampler import Sampler
from genda.grid import LatLonGrid
from genda.latent_card import is_latent
from genda.latent_methods import LATENT_METHODS, SHOWN, EnsembleShare, check_latent_name, make_latent_method
from genda.latent_model import LatentModel, load_latent_model
from genda.methods import Method
from genda.problem import Problem, Source
from genda.sources import climatology, observe
from genda.state import State, nonnegative, season
from genda.state_methods import make_method

UNOBSERVING = ("unconditional", "latent-prior")
"""Those that draw from the prior, whatever is observed."""
UNSAMPLED = (*latent_methods.DETERMINISTIC, "optimal-interpolation")
"""Those that sample nothing: one analysis, whatever ensemble is asked for."""


@dataclass(frozen=True)
class Analysis:
    """The result of one assimilation.

    Attributes:
        members: physical units, shape (1, member, channel, lat, lon).
        background: what hx_b is of: the climatology, or the mean of the forecasts given; shape (channel, lat, lon).
        observations: the table with hx_b and hx_a (member mean) for the rows that were used.
        method: its name.
        settings: what it was run with.
        seconds: wall time of the method itself.
    """

    members: State
    background: Tensor
    observations: pd.DataFrame | None
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def mean(self) -> State:
        """The member mean, shape (1, channel, lat, lon)."""
        s = self.members
        return State(s.values.mean(dim=1), s.channels, s.grid, s.times)


def load(name: str | Path) -> Model | LatentModel:
    """A shipped model by its name, or the model of a directory: a prior of states, or one of background errors.

    Raises:
        FileNotFoundError: if it is neither.
        ValueError: if it is damaged.
    """
    directory = model_directory(name)
    return load_latent_model(directory) if is_latent(directory) else load_model(directory)


def load_prior(name: str | Path) -> Model:
    """A prior of states, as :func:`load`."""
    return load_model(model_directory(name))


def usual_method(model: Model | LatentModel) -> str:
    """The method where none is asked for: fusion, or what a prior of background errors was trained to."""
    if not isinstance(model, LatentModel):
        return "fusion"
    return "losda" if model.error is None else "phyda"


def check_method(name: str, model: Model | LatentModel) -> None:
    """Refuse a method of another kind of prior.

    Raises:
        ValueError: naming what the prior is and what the method needs.
    """
    if isinstance(model, LatentModel):
        check_latent_name(name)
    elif name in LATENT_METHODS:
        such = "phyda" if name in SHOWN else "losda"
        raise ValueError(f"method {name!r}: found a prior of states, expected one of background errors, such as {such}")


def assimilate(
    model: Model | LatentModel,
    sources: Sequence[Source],
    time: np.datetime64,
    method: str | Method | None = None,
    members: int = 16,
    seed: int = 0,
    *,
    background: State | None = None,
    lead: int | None = None,
    observations: pd.DataFrame | None = None,
    **settings: Any,
) -> Analysis:
    """Analyse one time.

    Args:
        model: the prior, of states or of background errors.
        sources: from :func:`genda.sources.point_source` and :func:`genda.sources.field_source`; none samples the prior, as
            methods that take none do.
        time: valid time; it selects the season and, with ``seed``, the members.
        method: a name of :data:`genda.state_methods.METHODS` with ``settings`` for :func:`genda.state_methods.make_method`, or of
            :data:`genda.latent_methods.LATENT_METHODS` with those of :func:`genda.latent_methods.make_latent_method`, or a method
            object. By default :func:`usual_method`. Without ``gamma`` SDA takes
            :func:`genda.guidance.sda.default_gammas`.
        members: ensemble size.
        seed: member i depends on (seed, time, i) alone.
        background: for priors of background errors: a forecast of ``time``, or an ensemble of them, (1, [member,] channel,
            lat, lon) in physical units; methods are about the ensemble's mean.
        lead: of the background in h, one that the prior knows; by default its first.
        observations: the table behind the sources, to be returned with hx_b and hx_a.

    Raises:
        ValueError: for unusable input.
        FloatingPointError: if a member stopped being finite.
    """
    times = np.array([time], dtype="datetime64[ns]")
    name = method or usual_method(model)
    condition = season(times)[0]
    if isinstance(model, LatentModel):
        lead = model.lead_or_first(lead)
        condition = model.condition(times, lead)[0]
    elif lead is not None:
        raise ValueError(f"lead: found {lead} h with a prior of states, expected none")
    if isinstance(name, str):
        settings = _complete(model, name, sources, settings)
        chosen = _made(model, name, lead, settings)
    elif settings:
        raise ValueError(f"settings: found {', '.join(settings)} with a method that is made, expected none")
    else:
        chosen, name = name, type(name).__name__
    if name in UNOBSERVING and sources:
        raise ValueError(f"method {name}: found observations, expected none where the prior alone is drawn from")
    shape = (len(model.channels), *model.grid.shape)
    problem = Problem(shape, tuple(sources), condition=condition, time=str(times[0]))
    first_guess = climatology(model, time)
    if background is not None or isinstance(model, LatentModel):
        forecasts = background_members(model, background, time)
        first_guess = forecasts.mean(dim=0)
        normalised = model.normalisation.normalise(forecasts.unsqueeze(0), times)[0].float()
        several = len(normalised) > 1
        ensemble = normalised if several else None
        problem = replace(problem, background=normalised.mean(dim=0), ensemble=ensemble, averaged=several)
    generator = torch.Generator().manual_seed(derived_seed(seed, times[0]))
    started = clock.perf_counter()
    values = chosen.analyse(problem, members, generator)
    seconds = clock.perf_counter() - started
    physical = nonnegative(model.normalisation.physical(values.unsqueeze(0).cpu().float(), times), model.channels)
    state = State(physical, model.channels, model.grid, times)
    table = None
    if observations is not None:
        table = observations.copy()
        table["hx_b"] = observe(model, first_guess, table).numpy()
        table["hx_a"] = observe(model, physical[0].mean(dim=0), table).numpy()
    if problem.ensemble is None:
        settings.pop("ensemble", None)
    about = {} if lead is None else {"lead": lead}
    about |= {"members": len(values), "seed": seed, **_written(settings)}
    return Analysis(state, first_guess, table, name, about, seconds)


def _complete(
    model: Model | LatentModel, name: str, sources: Sequence[Source], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings given, and what a method takes by default."""
    check_method(name, model)
    latent = isinstance(model, LatentModel)
    parameters = signature(make_latent_method if latent else make_method).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY]
    if unknown := [key for key in given if key not in known]:
        raise ValueError(f"settings: found {', '.join(unknown)}, expected some of {', '.join(known)}")
    if isinstance(model, LatentModel):
        return latent_methods.complete_settings(name, model, given)
    return state_methods.complete_settings(name, model, sources, given)


def _made(model: Model | LatentModel, name: str, lead: int | None, settings: Mapping[str, Any]) -> Method:
    if isinstance(model, LatentModel):
        return make_latent_method(name, model, model.lead_or_first(lead), **settings)
    return make_method(name, model, **settings)


def _written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file can hold them: what has parts is spelled out, networks and callbacks are left out."""
    plain = dict(settings)
    for key, value in settings.items():
        if isinstance(value, Sampler):
            plain[key] = {part: each for part, each in asdict(value).items() if each != math.inf}
        elif isinstance(value, EnsembleShare):
            plain[key] = value.model_dump()
    return {key: value for key, value in plain.items() if isinstance(value, str | int | float | Mapping | None)}


def background_members(model: StateModel, background: State | None, time: np.datetime64) -> Tensor:
    """Forecasts of the analysis time on the model's channels, (member, channel, lat, lon), physical units.

    Raises:
        ValueError: naming what does not fit.
    """
    if background is None:
        raise ValueError("background: found none, expected a forecast of the analysis time for a prior of its errors")
    if not same_grid(background.grid, model.grid):
        raise ValueError(f"background: found a grid of {background.grid}, expected the model's, {model.grid}")
    if len(background.times) != 1 or not (np.isnat(background.times[0]) or background.times[0] == time):
        found = ", ".join(str(t) for t in background.times[:2])
        raise ValueError(f"background: found times {found}, expected {time} alone")
    try:
        values = background.select(model.channels).values[0]
    except ValueError as error:
        raise ValueError(f"background: {error}") from None
    return values if values.ndim == 4 else values.unsqueeze(0)


def same_grid(a: LatLonGrid, b: LatLonGrid) -> bool:
    """Whether two grids are the same to within a thousandth of a degree."""
    return a.shape == b.shape and bool(
        np.allclose(a.latitude, b.latitude, atol=1e-3) and np.allclose(a.longitude, b.longitude, atol=1e-3)
    )
