"""Methods on a prior of background errors, by name; as :func:`genda.assimilation.make_method` is for priors of states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from genda.diffusion.hybrid_gaussian import EnsembleBase
from genda.diffusion.increments import Increments
from genda.diffusion.sampler import Sampler
from genda.guidance.latent_optimisation import Optimiser
from genda.guidance.mmps import MMPS
from genda.guidance.observation_space import tangent_matrix
from genda.guidance.sda import DEFAULT_GAMMA, SDA, redundancy, smallest_stable_gamma
from genda.latent_model import LatentModel
from genda.methods import Method
from genda.methods.diffda import DiffDA
from genda.methods.latent import LatentGuidance, LatentSampling
from genda.methods.latent_variational import LatentVariational
from genda.methods.localisation import Localisation, sphere
from genda.methods.losda import LatentOptimisationGuidance
from genda.observations.operators import LinearOperator
from genda.problem import Problem

LATENT_METHODS = ("losda", "latent-dps", "latent-mmps", "latent-3d-var", "latent-prior", "diffda")
OPTIMISATION = ("every", "last", "metric", "reach")
OPTIMISER = ("kind", "iterations", "inner", "rate", "discrepancy")


@dataclass(frozen=True)
class EnsembleShare:
    """How much of the prior's Gaussian is the climatological covariance, and how much that of the day's ensemble.

    Attributes:
        static_weight, ensemble_weight: of each.
        radius: distance (chord) in m from which on members say nothing of each other's points.
    """

    static_weight: float = 0.5
    ensemble_weight: float = 0.5
    radius: float = 8.0e6

    def base(self, model: LatentModel) -> EnsembleBase:
        """On the grid of a model's latent."""
        points = sphere(model.grid.coarsened(model.space.spec.patch))
        return EnsembleBase(Localisation(points, self.radius).root(), self.static_weight, self.ensemble_weight)


@dataclass(frozen=True)
class LatentSettings:
    """What a latent method can be told; each reads its own.

    Attributes:
        sampler: None for :func:`latent_sampler`.
        optimisation: of LO-SDA, those of :class:`genda.methods.losda.LatentOptimisationGuidance` and of
            :class:`genda.guidance.latent_optimisation.Optimiser`.
        gamma: Γ of DPS; None for the least with which it is stable, or 0.03.
        iterations: of MMPS.
        scale: factor on the background covariance of 3D-Var.
        ensemble: take a share of the covariance from the background's ensemble.
        width: of DiffDA's mask, m; by default 1.5 cells of the shipped grid.
    """

    sampler: Sampler | None = None
    optimisation: Mapping[str, Any] | None = None
    gamma: float | None = None
    iterations: int = 3
    scale: float = 1.0
    ensemble: EnsembleShare | None = None
    width: float = 6.0e5


def latent_sampler(**changes: Any) -> Sampler:
    """How increments are sampled, with any setting changed; chosen on validation dates, see benchmarks/search/losda.yaml.

    Increments have unit variance and their largest patterns a hundred times as much and more: a first level of 40 leaves a
    trace of the start in the mean where an ensemble's covariance joins. Below a level of 0.2 there is nothing left to tell.
    """
    return Sampler(**({"steps": 10, "sigma_min": 0.2, "sigma_max": 100.0} | changes))


def diffda_walk(**changes: Any) -> Sampler:
    """DiffDA's walk back and forth, with any setting changed: five jumps of five steps, a tenth of the paper's denoiser calls."""
    return Sampler(**({"steps": 30, "sigma_min": 0.05, "sigma_max": 60.0, "jump": 5, "repeats": 5} | changes))


def make_latent_method(
    name: str,
    model: LatentModel,
    lead: int,
    settings: LatentSettings = LatentSettings(),
    *,
    batch: int | None = None,
    device: str = "cpu",
    progress: Callable[[], None] | None = None,
) -> Method:
    """A method about backgrounds of one lead.

    Raises:
        ValueError: for an unknown name or setting, or a lead that the model was not trained on.
    """
    if name not in LATENT_METHODS:
        expected = ", ".join(LATENT_METHODS)
        raise ValueError(
            f"method {name!r}: found a prior of background errors, expected one of its methods, {expected}"
        )
    prior = model.prior(lead)
    if name == "latent-3d-var":
        return LatentVariational(prior, scale=settings.scale)
    if name == "diffda":
        if model.space.spec.kind != "identity":
            found = f"a latent of kind {model.space.spec.kind}"
            raise ValueError(f"diffda: found {found}, expected a prior of the errors of states, without autoencoder")
        points = torch.as_tensor(sphere(model.grid)).float()
        distance = torch.cdist(points, points)
        return DiffDA(prior, distance, settings.width, settings.sampler or diffda_walk(), batch, progress)
    sampler = settings.sampler or latent_sampler()
    guidance: dict[str, LatentGuidance] = {
        "losda": _optimisation(sampler, settings.optimisation or {}),
        "latent-dps": partial(_dps, sampler, settings.gamma),
        "latent-mmps": partial(MMPS, iterations=settings.iterations),
        "latent-prior": lambda about, _: about,
    }
    ensemble = None if settings.ensemble is None else settings.ensemble.base(model)
    return LatentSampling(prior, guidance[name], sampler, ensemble, batch=batch, device=device, progress=progress)


def _dps(sampler: Sampler, gamma: float | None, about: Increments, problem: Problem) -> SDA:
    """DPS with the Γ it takes: zero, the paper's, diverges."""
    if gamma is not None:
        return SDA(about, problem, gamma=gamma)
    gammas = {}
    for source in problem.sources:
        rows = tangent_matrix(source.operator)
        variance = float(source.covariance.variance.min())  # type: ignore[attr-defined]
        repeated = 1.0 if rows is None else redundancy(LinearOperator(rows, about.shape))
        stable = smallest_stable_gamma(sampler.levels, variance, repeated * len(problem.sources))
        gammas[source.name] = max(DEFAULT_GAMMA, stable)
    return SDA(about, problem, gamma=gammas)


def _optimisation(sampler: Sampler, given: Mapping[str, Any]) -> LatentOptimisationGuidance:
    unknown = [name for name in given if name not in (*OPTIMISATION, *OPTIMISER)]
    if unknown:
        expected = ", ".join((*OPTIMISATION, *OPTIMISER))
        raise ValueError(f"optimisation: found no setting {', '.join(unknown)}, expected some of {expected}")
    optimiser = Optimiser(**{name: value for name, value in given.items() if name in OPTIMISER})
    schedule = {name: value for name, value in given.items() if name in OPTIMISATION}
    return LatentOptimisationGuidance(sampler, optimiser=optimiser, **schedule)
