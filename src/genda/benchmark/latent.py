"""Methods on a prior of background errors as rows of a twin suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from genda.assets import model_directory
from genda.benchmark.generative import check_unseen
from genda.checkpoint import Model
from genda.diffusion.sampler import Sampler
from genda.documents import Strict
from genda.guidance.mmps import DEFAULT_ITERATIONS
from genda.latent_card import has_autoencoder, latent_digests
from genda.latent_methods import (
    DETERMINISTIC,
    MASK_WIDTH,
    OPTIMISED,
    EnsembleShare,
    LatentMethodName,
    latent_optimisation,
    make_latent_method,
    usual_sampler,
)
from genda.latent_model import LatentModel, load_latent_model
from genda.methods import Method
from genda.settings import checked_settings


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

    method: Literal[LatentMethodName, "latent-floor"]
    model: str = "losda"
    members: int | None = Field(default=None, ge=2)
    ensemble: EnsembleShare | None = None
    sampler: Mapping[str, int | float | bool | str] = {}
    optimisation: Mapping[str, int | float | str | None] = {}
    gamma: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    iterations: int = Field(default=DEFAULT_ITERATIONS, ge=1)
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    width: float = Field(default=MASK_WIDTH, gt=0, allow_inf_nan=False)
    only: tuple[str, ...] = ()


def latent_method(spec: LatentSpec, lead: int) -> Method:
    """The method of a row about backgrounds of one lead.

    Raises:
        ValueError: for settings that do not go together, or a lead the model was not trained on.
    """
    names = ("optimisation", "gamma", "iterations", "width")
    given = {name: getattr(spec, name) for name in names if name in spec.model_fields_set}
    if _samples(spec) or spec.sampler:
        given["sampler"] = _sampler(spec)
    return make_latent_method(
        spec.method, latent_model_of(spec.model), lead, scale=spec.scale, ensemble=spec.ensemble, **given
    )


def antithetic(spec: LatentSpec) -> bool:
    """Whether members come in pairs from opposite noise."""
    return _samples(spec) and _sampler(spec).antithetic


def resolved(spec: LatentSpec, members: int) -> dict[str, object]:
    """All that a row's numbers depend on, what it leaves to the code included, with the suite's ``members``."""
    found = spec.model_dump(mode="json", exclude={"only"}) | {"members": spec.members or members}
    if _samples(spec):
        found["sampler"] = asdict(_sampler(spec))
    if spec.method in OPTIMISED:
        found["optimisation"] = asdict(latent_optimisation(spec.method, _sampler(spec), spec.optimisation)) | {
            "sampler": None
        }
    return found


def _samples(spec: LatentSpec) -> bool:
    return spec.method not in (*DETERMINISTIC, "latent-floor")


def _sampler(spec: LatentSpec) -> Sampler:
    usual = usual_sampler(spec.method, has_autoencoder(model_directory(spec.model)))
    return checked_settings("sampler", Sampler, asdict(usual) | dict(spec.sampler))


def check_latent(
    prior: Model, name: str, spec: LatentSpec, lead: int, members: int, times: NDArray[np.datetime64]
) -> None:
    """Refuse a row whose model does not fit the suite's prior or has seen its dates, or whose members, the suite's by default,
    can't be scored.

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
    for card in (model.card, model.space.card):
        check_unseen(spec.model, card, times)
    if spec.method == "latent-floor":
        model.prior(lead)
        unread = sorted(spec.model_fields_set - {"method", "model", "only"})
        if unread:
            raise ValueError(f"methods.{name}: found {', '.join(unread)}, expected a floor to have a model alone")
        return
    latent_method(spec, lead)
    count = spec.members or members
    if antithetic(spec) and not _sampler(spec).pairs(count):
        found = f"found {count} members of a sampler that draws pairs from opposite noise"
        raise ValueError(f"methods.{name}: members: {found}, expected an even number from 4")


def weights_of(spec: LatentSpec) -> tuple[str, ...]:
    """Digests of what a row's numbers depend on."""
    return latent_digests(model_directory(spec.model))


@lru_cache(maxsize=2)
def latent_model_of(name: str) -> LatentModel:
    """A prior of increments by name or directory, kept in memory."""
    return load_latent_model(name)
