"""From files to an analysis: model, background, observation tables and coarse fields in, an ensemble out.

This is where physical units become normalised ones and back; methods in between see a :class:`genda.problem.Problem`.
"""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from genda.assets import model_directory
from genda.checkpoint import Model, StateModel, load_model
from genda.diffusion.gaussian import SphericalGaussian
from genda.diffusion.noise import derived_seed
from genda.diffusion.sampler import Sampler
from genda.grid import LatLonGrid
from genda.guidance.gaussian import GaussianGuidance
from genda.guidance.mmps import MMPS
from genda.guidance.sda import DEFAULT_GAMMA, SDA, default_gammas, stable_gammas
from genda.latent_card import is_latent
from genda.latent_methods import LATENT_METHODS, MMPS_ITERATIONS, EnsembleShare, complete_settings, make_latent_method
from genda.latent_model import LatentModel, load_latent_model
from genda.linalg import BlockDiagonal, Covariance, Diagonal
from genda.methods import Method
from genda.methods.fusion import Fusion, Guidance
from genda.methods.optimal_interpolation import OptimalInterpolation
from genda.observations import operators
from genda.observations.errors import sounding_blocks
from genda.observations.networks import columns_table
from genda.observations.quantities import Quantity
from genda.parallel import known_device
from genda.problem import Problem, Source
from genda.settings import refuse_unread
from genda.state import State, nonnegative, season

METHODS = ("fusion", "fusion-sda", "fusion-gaussian", "optimal-interpolation", "unconditional")
UNOBSERVING = ("unconditional", "latent-prior")
"""Those that draw from the prior, whatever is observed."""
READ_BY = {
    "sampler": tuple(name for name in METHODS if name != "optimal-interpolation"),
    "errors": tuple(name for name in METHODS if name != "optimal-interpolation"),
    "iterations": ("fusion",),
    "gamma": ("fusion-sda",),
    "guidance_scale": ("fusion", "fusion-sda"),
    "clip": ("fusion-sda",),
}
"""The methods that read each setting."""


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


def point_operator(
    model: StateModel, table: pd.DataFrame, interpolation: operators.Interpolation = "bicubic"
) -> tuple[operators.LinearOperator, np.ndarray[Any, np.dtype[np.float64]]]:
    """H for the rows of an observation table.

    Returns:
        the normalised operator, and the scale s_o of each row in physical units.

    Raises:
        ValueError: for a variable the model lacks, a pressure outside its levels or a point outside its domain.
    """
    return operators.normalised(_point_matrix(model, table, interpolation), model.grid, model.normalisation.std)


def quantity_operator(
    model: StateModel, quantity: Quantity, sites: pd.DataFrame, time: np.datetime64
) -> operators.Nonlinear:
    """H of a quantity of columns, on states in normalised anomalies; values in the quantity's own unit, site by site.

    Args:
        sites: station, latitude, longitude, elevation.
        time: valid time, of whose season the anomalies are.

    Raises:
        ValueError: for a channel the model lacks or a site outside its domain.
    """
    table = columns_table(sites, quantity.channels, time)
    inner, scale = point_operator(model, table)
    mean, std = observe(model, climatology(model, time), table), torch.as_tensor(scale)

    def function(y: Tensor) -> Tensor:
        values = mean.to(y) + std.to(y) * y
        return quantity.function(values.view(len(y), len(sites), -1)).flatten(1)

    return operators.Nonlinear(function, inner)


def observe(where: StateModel | State, values: Tensor, table: pd.DataFrame) -> Tensor:
    """H of physical fields on the grid and channels of a model or state, at the rows of a table.

    Shapes (..., channel, lat, lon) to (..., rows); physical units. Raises as :func:`point_operator`.
    """
    operator = operators.LinearOperator(_point_matrix(where, table), (len(where.channels), *where.grid.shape))
    return operator(values.double().reshape(-1, *values.shape[-3:])).view(*values.shape[:-3], len(table))


def _point_matrix(
    where: StateModel | State, table: pd.DataFrame, interpolation: operators.Interpolation = "bicubic"
) -> sp.csr_array:
    return operators.points(
        where.grid,
        where.channels,
        table["variable"].tolist(),
        table["pressure"].to_numpy(dtype=np.float64),
        table["latitude"].to_numpy(dtype=np.float64),
        table["longitude"].to_numpy(dtype=np.float64),
        interpolation,
    )


def climatology(model: StateModel, time: np.datetime64) -> Tensor:
    """The seasonal mean state, physical units, shape (channel, lat, lon)."""
    mean = model.normalisation.mean_at(np.array([time]))[0]
    return mean.expand(len(model.channels), *model.grid.shape)


def point_source(
    model: StateModel,
    table: pd.DataFrame,
    time: np.datetime64,
    name: str = "observations",
    weight: float = 1.0,
    interpolation: operators.Interpolation = "bicubic",
    vertical_correlation: float | None = None,
) -> Source:
    """An observation table as a source in normalised anomalies.

    Args:
        table: rows to use; every ``obs_error`` must be given and every value finite.
        vertical_correlation: depth in ln p over which errors of a sounding's variable are correlated
            (:func:`genda.observations.errors.sounding_blocks`); independent where None.

    Raises:
        ValueError: for an empty table, a missing error, or as :func:`point_operator`.
    """
    if not len(table):
        raise ValueError(f"{name}: found no observations to use, expected at least one")
    errors = table["obs_error"].to_numpy(dtype=np.float64)
    if not (np.isfinite(errors) & (errors > 0)).all():
        row = table.index[~(np.isfinite(errors) & (errors > 0))][0]
        raise ValueError(f"{name}: row {row} has obs_error {table.loc[row, 'obs_error']}, expected a positive number")
    operator, scale = point_operator(model, table, interpolation)
    expected = observe(model, climatology(model, time), table).numpy()
    values = (table["observation"].to_numpy(dtype=np.float64) - expected) / scale
    deviation = torch.as_tensor(errors / scale, dtype=torch.float32)
    covariance: Covariance = Diagonal(deviation**2)
    if vertical_correlation is not None:
        blocks, correlations = sounding_blocks(table, vertical_correlation)
        covariance = BlockDiagonal.of(
            deviation, list(map(torch.as_tensor, blocks)), list(map(torch.as_tensor, correlations))
        )
    return Source(torch.as_tensor(values, dtype=torch.float32), operator, covariance, name, weight)


def field_source(
    model: StateModel,
    coarse: State,
    error: float,
    name: str = "field",
    weight: float = 1.0,
    method: Literal["area", "bicubic", "bilinear"] = "area",
) -> Source:
    """A coarse field or an emulator forecast on its own grid as a source.

    Args:
        coarse: one time, shape (1, channel, lat, lon), physical units; any subset of the model's channels.
        error: standard deviation of its error, in units of each channel's climatological std.
        method: how the model state becomes the coarse one.

    Raises:
        ValueError: for a channel the model lacks, several times, or an error that is not positive.
    """
    if not error > 0:
        raise ValueError(f"{name}: found error {error:g}, expected a positive fraction of the climatological std")
    if coarse.values.ndim != 4 or len(coarse.times) != 1:
        raise ValueError(f"{name}: found {tuple(coarse.values.shape)}, expected one time without members")
    missing = [c for c in coarse.channels if c not in model.channels]
    if missing:
        raise ValueError(f"{name}: channels {', '.join(missing)} are not in the model: {', '.join(model.channels)}")
    index = [model.channels.index(c) for c in coarse.channels]
    matrix = operators.coarse(model.grid, coarse.channels, coarse.grid, method)
    inner = operators.LinearOperator(matrix, (len(index), *model.grid.shape))
    std = model.normalisation.std[index].view(1, -1, 1, 1)
    mean = inner(climatology(model, coarse.times[0])[index].double().unsqueeze(0)).view(
        1, len(index), *coarse.grid.shape
    )
    values = ((coarse.values.double() - mean) / std).flatten().float()
    operator = operators.LinearOperator(_on_channels(matrix, index, model), (len(model.channels), *model.grid.shape))
    return Source(values, operator, Diagonal(torch.full_like(values, error**2)), name, weight)


def coarse_field(state: State, factor: int) -> State:
    """Area means of a state over blocks of ``factor`` × ``factor`` cells."""
    target = state.grid.coarsened(factor)
    operator = operators.LinearOperator(
        operators.coarse(state.grid, state.channels, target), (len(state.channels), *state.grid.shape)
    )
    values = operator(state.values.double()).float().view(-1, len(state.channels), *target.shape)
    return State(values, state.channels, target, state.times)


def _on_channels(matrix: Any, index: list[int], model: StateModel) -> Any:
    """Columns of a matrix on some channels moved to their place among all channels."""
    if index == list(range(len(model.channels))):
        return matrix
    cells = model.grid.shape[0] * model.grid.shape[1]
    coordinates = matrix.tocoo()
    columns = np.asarray(index)[coordinates.col // cells] * cells + coordinates.col % cells
    return sp.csr_array(
        (coordinates.data, (coordinates.row, columns)), shape=(matrix.shape[0], len(model.channels) * cells)
    )


def default_sampler(model: Model, **changes: Any) -> Sampler:
    """Algorithm 1 as this model is best sampled, with any of its settings changed.

    A prior on a spherical Gaussian base starts from that Gaussian's posterior (``Fusion.start``, which
    :func:`make_method` sets), to which noise of 15 is added, and churns: fresh noise at every level gives the members the
    small scales that a denoiser of finite training smooths away. Both halves of a step have their own likelihood score: to
    keep that of the prediction costs a fifth of the accuracy. Any other prior starts from sigma = 80. The settings were
    chosen on validation dates, see docs/results/search.md.
    """
    spherical = isinstance(getattr(model.denoiser, "base", None), SphericalGaussian)
    settings: dict[str, Any] = {"steps": 20}
    if spherical:
        settings = {"steps": 10, "sigma_max": 15.0, "churn": 5.0}
    return Sampler(**(settings | changes))


def make_method(
    name: str,
    model: Model,
    *,
    sampler: Sampler | None = None,
    iterations: int | None = None,
    gamma: float | Mapping[str, float] | None = None,
    guidance_scale: float | None = None,
    clip: float | None = None,
    errors: SphericalGaussian | None = None,
    batch: int | None = None,
    device: str = "cpu",
    progress: Callable[[], None] | None = None,
) -> Method:
    """A method of this package by its command-line name.

    Args:
        name: one of :data:`METHODS`.
        model: a prior of states.
        sampler: None for :func:`default_sampler`.
        iterations: of MMPS, :data:`genda.latent_methods.MMPS_ITERATIONS` by default.
        gamma: Γ of SDA, of all sources or of each by its name.
        guidance_scale: factor on the likelihood's score, 1 by default.
        clip: of SDA, the largest likelihood score of an element.
        errors: of a background, where the prior takes one into account.
        batch: members at a time, None for all.
        device: where to sample.
        progress: called after every sampling step of every batch.

    Raises:
        ValueError: for an unknown name, a setting it does not read, or a Gaussian method on a model without a Gaussian base.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown: expected one of {', '.join(METHODS)}")
    given = {"sampler": sampler, "errors": errors, "iterations": iterations, "gamma": gamma}
    refuse_unread(name, given | {"guidance_scale": guidance_scale, "clip": clip}, READ_BY)
    scale = 1.0 if guidance_scale is None else guidance_scale
    base = getattr(model.denoiser, "base", None)
    if name in ("optimal-interpolation", "fusion-gaussian") and not isinstance(base, SphericalGaussian):
        raise ValueError(f"method {name!r} needs a model on a spherical Gaussian base, found {type(base).__name__}")
    device = known_device(device)
    if name == "optimal-interpolation" and isinstance(base, SphericalGaussian):
        return OptimalInterpolation(base)
    guidance: dict[str, Guidance] = {
        "fusion": partial(
            MMPS,
            iterations=MMPS_ITERATIONS if iterations is None else iterations,
            scale=scale,
            preconditioner=base if isinstance(base, SphericalGaussian) else None,
        ),
        "unconditional": partial(MMPS, iterations=1),
        "fusion-sda": partial(SDA, gamma=DEFAULT_GAMMA if gamma is None else gamma, scale=scale, clip=clip),
        "fusion-gaussian": partial(GaussianGuidance, covariance=base),  # type: ignore[arg-type]
    }
    start = base if isinstance(base, SphericalGaussian) else None
    sampler = sampler or default_sampler(model)
    return Fusion(model.denoiser.to(device), guidance[name], sampler, start, errors, batch, device, progress)


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
        sources: from :func:`point_source` and :func:`field_source`; none samples the prior, as methods that take none do.
        time: valid time; it selects the season and, with ``seed``, the members.
        method: a name of :data:`METHODS` with ``settings`` for :func:`make_method`, or of
            :data:`genda.latent_methods.LATENT_METHODS` with those of :func:`genda.latent_methods.make_latent_method`, or a method
            object. By default fusion, or losda. Without ``gamma`` SDA takes :func:`genda.guidance.sda.default_gammas`.
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
    name = method or ("losda" if isinstance(model, LatentModel) else "fusion")
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
        forecasts = _background_members(model, background, time)
        first_guess = forecasts.mean(dim=0)
        normalised = model.normalisation.normalise(forecasts.unsqueeze(0), times)[0].float()
        problem = replace(
            problem, background=normalised.mean(dim=0), ensemble=normalised if len(normalised) > 1 else None
        )
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
    latent = isinstance(model, LatentModel)
    if not latent and name in LATENT_METHODS:
        raise ValueError(f"method {name!r}: found a prior of states, expected one of background errors, such as losda")
    if latent and name in METHODS:
        raise ValueError(f"method {name!r}: unknown to a prior of background errors, expected one of {LATENT_METHODS}")
    parameters = signature(make_latent_method if latent else make_method).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY]
    if unknown := [key for key in given if key not in known]:
        raise ValueError(f"settings: found {', '.join(unknown)}, expected some of {', '.join(known)}")
    if isinstance(model, LatentModel):
        return complete_settings(name, model, given)
    settings = ({"iterations": MMPS_ITERATIONS} if name == "fusion" else {}) | dict(given)
    if name in READ_BY["sampler"] and settings.get("sampler") is None:
        settings["sampler"] = default_sampler(model)
    if name == "fusion-sda" and settings.get("gamma") is None:
        about = torch.zeros(1, len(model.channels), *model.grid.shape)
        settings["gamma"] = default_gammas(stable_gammas(settings["sampler"], sources, about))
    return settings


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


def _background_members(model: StateModel, background: State | None, time: np.datetime64) -> Tensor:
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
