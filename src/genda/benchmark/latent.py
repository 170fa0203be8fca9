"""Methods on a prior of background errors as rows of a twin suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field

from genda.assets import model_directory
from genda.checkpoint import Model, Strict
from genda.diffusion.sampler import Sampler
from genda.latent_methods import (
    EnsembleShare,
    checked_settings,
    make_latent_method,
    usual_sampler,
)
from genda.latent_model import LatentModel, latent_digests, load_latent_model
from genda.methods import Method


class LatentSpec(Strict):
    """A latent method.

    Attributes:
        method: of :data:`genda.latent_methods.LATENT_METHODS`; or ``latent-floor``, the background moved to the truth as far as the
            latent can: what no latent method can go below.
        model: a prior of increments, by name or directory, in the units of the suite's prior.
        members: of the ensemble; the suite's own where not given.
        ensemble: take the background's ensemble into the day's covariance; without it only the background is seen.
        sampler, optimisation, gamma, iterations, scale, width: see :func:`genda.latent_methods.make_latent_method`.
        only: scenarios it takes part in; all where empty.
    """

    method: Literal["losda", "latent-dps", "latent-mmps", "latent-3d-var", "latent-prior", "latent-floor", "diffda"]
    model: str = "losda"
    members: int | None = Field(default=None, ge=2)
    ensemble: EnsembleShare | None = None
    sampler: Mapping[str, int | float | bool | str] = {}
    optimisation: Mapping[str, int | float | str | None] = {}
    gamma: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    iterations: int = Field(default=3, ge=1)
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    width: float = Field(default=1.5e5, gt=0, allow_inf_nan=False)
    only: tuple[str, ...] = ()


def latent_method(spec: LatentSpec, lead: int) -> Method:
    """The method of a row about backgrounds of one lead.

    Raises:
        ValueError: for settings that do not go together, or a lead the model was not trained on.
    """
    return make_latent_method(
        spec.method,
        latent_model_of(spec.model),
        lead,
        sampler=_sampler(spec),
        optimisation=spec.optimisation,
        gamma=spec.gamma,
        iterations=spec.iterations,
        scale=spec.scale,
        width=spec.width,
        ensemble=spec.ensemble,
    )


def antithetic(spec: LatentSpec, members: int) -> bool:
    """Whether so many members come in pairs from opposite noise."""
    return spec.method not in ("latent-3d-var", "latent-floor") and _sampler(spec).pairs(members)


def resolved(spec: LatentSpec, members: int) -> dict[str, object]:
    """All that a row's numbers depend on, what it leaves to the code included, with the suite's ``members``."""
    given = spec.model_dump(mode="json", exclude={"only"})
    own = {"members": spec.members or members}
    return given | own if spec.method == "latent-floor" else given | own | {"sampler": asdict(_sampler(spec))}


def _sampler(spec: LatentSpec) -> Sampler:
    usual = usual_sampler(spec.method)
    return checked_settings("sampler", Sampler, asdict(usual) | dict(spec.sampler))


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


@lru_cache(maxsize=2)
def latent_model_of(name: str) -> LatentModel:
    """A prior of increments by name or directory, kept in memory."""
    return load_latent_model(name)
