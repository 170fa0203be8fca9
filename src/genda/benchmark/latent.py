"""Methods on a prior of background errors as rows of a twin suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from genda.assets import model_directory
from genda.checkpoint import Model, Strict
from genda.diffusion.sampler import Sampler
from genda.latent_methods import (
    OPTIMISATION,
    OPTIMISER,
    EnsembleShare,
    LatentSettings,
    diffda_walk,
    latent_sampler,
    make_latent_method,
)
from genda.latent_model import LatentModel, latent_digests, load_latent_model
from genda.methods import Method


class EnsembleSpec(Strict):
    """Covariance of the day in latent space: ``static_weight`` of the climatological one and ``ensemble_weight`` of the ensemble's,
    tapered to 0 at ``radius`` in m."""

    static_weight: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    ensemble_weight: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    radius: float = Field(default=8.0e6, gt=0, allow_inf_nan=False)


class LatentSpec(Strict):
    """A latent method.

    Attributes:
        method: of :data:`genda.latent_methods.LATENT_METHODS`; or ``latent-floor``, the background moved to the truth as far as the
            latent can: what no latent method can go below.
        model: a prior of increments, by name or directory, in the units of the suite's prior.
        members: of the ensemble; the suite's own where not given.
        ensemble: take the background's ensemble into the day's covariance; without it only the background is seen.
        sampler, optimisation, gamma, iterations, scale, width: see :class:`genda.latent_methods.LatentSettings`.
        only: scenarios it takes part in; all where empty.
    """

    method: Literal["losda", "latent-dps", "latent-mmps", "latent-3d-var", "latent-prior", "latent-floor", "diffda"]
    model: str = "losda"
    members: int | None = Field(default=None, ge=2)
    ensemble: EnsembleSpec | None = None
    sampler: Mapping[str, int | float | bool | str] = {}
    optimisation: Mapping[str, int | float | str | None] = {}
    gamma: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    iterations: int = Field(default=3, ge=1)
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    width: float = Field(default=6.0e5, gt=0, allow_inf_nan=False)
    only: tuple[str, ...] = ()

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return _known(given, tuple(field.name for field in fields(Sampler)))

    @field_validator("optimisation")
    @classmethod
    def _known_optimisation(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return _known(given, (*OPTIMISATION, *OPTIMISER))


def latent_method(spec: LatentSpec, lead: int) -> Method:
    """The method of a row about backgrounds of one lead.

    Raises:
        ValueError: for settings that do not go together, or a lead the model was not trained on.
    """
    ensemble = None if spec.ensemble is None else EnsembleShare(**spec.ensemble.model_dump())
    settings = LatentSettings(
        _sampler(spec), spec.optimisation, spec.gamma, spec.iterations, spec.scale, ensemble, spec.width
    )
    return make_latent_method(spec.method, latent_model_of(spec.model), lead, settings)


def _sampler(spec: LatentSpec) -> Sampler:
    return diffda_walk(**spec.sampler) if spec.method == "diffda" else latent_sampler(**spec.sampler)


def check_latent(prior: Model, name: str, spec: LatentSpec, lead: int) -> None:
    """Refuse a row whose model does not fit the suite's prior.

    Raises:
        ValueError: naming the row, what was found and what was expected.
    """
    model = latent_model_of(spec.model)
    same = (
        model.channels == prior.channels
        and model.grid == prior.grid
        and torch.equal(model.normalisation.std, prior.normalisation.std)
        and torch.equal(model.normalisation.mean, prior.normalisation.mean)
    )
    if not same:
        raise ValueError(
            f"methods.{name}: {spec.model}: found a model of other channels, grid or climatology, expected those of the "
            "suite's prior (data.normalisation in the configuration of its autoencoder)"
        )
    if spec.method == "latent-floor":
        model.prior(lead)
    else:
        latent_method(spec, lead)


def weights_of(spec: LatentSpec) -> tuple[str, ...]:
    """Digests of what a row's numbers depend on."""
    return latent_digests(model_directory(spec.model))


def _known(given: Mapping[str, Any], known: tuple[str, ...]) -> Mapping[str, Any]:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"found no setting {', '.join(unknown)}, expected some of {', '.join(known)}")
    return given


@lru_cache(maxsize=2)
def latent_model_of(name: str) -> LatentModel:
    """A prior of increments by name or directory, kept in memory."""
    return load_latent_model(name)
