"""Methods on a prior of background errors, by name; as :func:`genda.state_methods.make_method` is for priors of states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from genda.diffusion.hybrid_gaussian import EnsembleBase
from genda.diffusion.increments import Increments
from genda.diffusion.sampler import Sampler
from genda.documents import Strict
from genda.grid import LatLonGrid
from genda.guidance.latent_optimisation import Optimiser
from genda.guidance.mmps import DEFAULT_ITERATIONS, MMPS
from genda.guidance.sda import SDA, default_gammas, stable_gammas
from genda.latent_model import LatentModel
from genda.methods import Method
from genda.methods.diffda import DiffDA
from genda.methods.latent import LatentGuidance, LatentSampling
from genda.methods.latent_gaussian import LatentGaussian
from genda.methods.latent_variational import LatentVariational
from genda.methods.localisation import Localisation, sphere
from genda.methods.losda import LatentOptimisationGuidance
from genda.parallel import known_device
from genda.problem import Problem
from genda.settings import checked_settings, refuse_unread

LatentMethodName = Literal[
    "losda",
    "latent-dps",
    "latent-mmps",
    "latent-3d-var",
    "latent-gaussian",
    "latent-prior",
    "diffda",
    "phyda",
    "phyda-plus",
]
LATENT_METHODS: tuple[str, ...] = get_args(LatentMethodName)
DETERMINISTIC = ("latent-3d-var", "latent-gaussian")
"""Those of one analysis, whatever number of members is asked for."""
OPTIMISED = ("losda", "phyda-plus")
"""Those that optimise latents at scheduled steps."""
SHOWN = ("phyda", "phyda-plus")
"""Those whose network sees the observations."""
MASK_WIDTH = 1.5e5
"""Of DiffDA, m: a third of a cell of the shipped grid. Where observations are sparse the paper's 1.5 cells paint over what the
prior knows better."""
READ_BY = {
    "sampler": tuple(name for name in LATENT_METHODS if name not in DETERMINISTIC),
    "optimisation": OPTIMISED,
    "gamma": ("latent-dps",),
    "iterations": ("latent-mmps",),
    "width": ("diffda",),
    "ensemble": tuple(name for name in LATENT_METHODS if name not in ("latent-3d-var", "diffda")),
}
"""The methods that read each setting."""


class EnsembleShare(Strict):
    """How much of the prior's Gaussian is the climatological covariance, and how much that of the background's ensemble.

    Attributes:
        static_weight, ensemble_weight: of each.
        radius: distance (chord) in m from which on members say nothing of each other's points.
        correction: share of the network's correction that is kept. It was trained to correct the climatological Gaussian alone,
            and some of what it knows of the day the ensemble knows too.
    """

    static_weight: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    ensemble_weight: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    radius: float = Field(default=8.0e6, gt=0, allow_inf_nan=False)
    correction: float = Field(default=0.5, ge=0, le=1)

    def base(self, model: LatentModel) -> EnsembleBase:
        """On the grid of a model's latent."""
        taper = _taper(model.grid.coarsened(model.space.spec.patch), self.radius)
        return EnsembleBase(taper, self.static_weight, self.ensemble_weight, self.correction)


DEFAULT_SHARE = EnsembleShare()
"""Of a background's ensemble, where nothing else is asked for."""


@lru_cache(maxsize=2)
def _taper(grid: LatLonGrid, radius: float) -> Tensor:
    return Localisation(sphere(grid), radius).root()


def latent_sampler(**changes: Any) -> Sampler:
    """How increments are sampled, with any setting changed; chosen on validation dates, see docs/results/losda-search.md.

    Increments have unit variance and their largest patterns a hundred times as much and more: a first level of 40 leaves a
    trace of the start in the mean where an ensemble's covariance joins. Below a level of 0.2 a latent has nothing left to tell.
    Members come in pairs from opposite noise, whose mean is as good as that of many more.
    """
    return Sampler(
        **({"steps": 10, "sigma_min": 0.2, "sigma_max": 100.0, "multistep": True, "antithetic": True} | changes)
    )


def diffda_walk(**changes: Any) -> Sampler:
    """DiffDA's walk back and forth, with any setting changed: jumps of five steps, five times, a tenth of the paper's calls.

    Steps are of first order, as the paper's: Heun's cost twice as much and are no better, see docs/results/losda-search.md.
    """
    walk = {"steps": 30, "sigma_min": 0.05, "sigma_max": 60.0, "second_order": False, "jump": 5, "repeats": 5}
    return Sampler(**(walk | {"antithetic": True} | changes))


def usual_sampler(method: str, encoded: bool, **changes: Any) -> Sampler:
    """How a method of :data:`LATENT_METHODS` samples where nothing is said, with any setting changed.

    DPS moves by small steps: every doubling of their number brings it nearer, see docs/results/losda-search.md. Where states are
    not ``encoded`` nothing is lost to a latent that would hide what is left below the last level: it is lower.
    """
    if method == "diffda":
        return diffda_walk(**changes)
    usual: dict[str, Any] = {} if encoded else {"sigma_min": 0.02}
    if method == "latent-dps":
        usual = {"steps": 128, "sigma_min": 0.02}
    elif method == "phyda-plus":
        usual |= {"multistep": False}  # half of its steps are optimised
    return latent_sampler(**(usual | changes))


def usual_schedule(method: str) -> dict[str, Any]:
    """What a method of :data:`OPTIMISED` is scheduled with where nothing is said, beside its guidance's own defaults.

    A network that sees the observations knows better than a Gaussian what they tell of large scales; what it leaves of them is for
    the second half of the steps. Chosen on validation dates, see docs/results/phyda.md.
    """
    return {"last": 0.5} if method in SHOWN else {}


def joins_ensemble(name: str, model: LatentModel) -> bool:
    """Whether the covariance of a background's ensemble can join the Gaussian of a method.

    Not where a network sees observations and is about the background: what it knows of them is a correction of that Gaussian's
    own, which the ensemble would share.
    """
    return name in READ_BY["ensemble"] and (name not in SHOWN or model.about_analysis)


def check_latent_name(name: str) -> None:
    """Refuse what is no method on a prior of background errors.

    Raises:
        ValueError: with those that are.
    """
    if name not in LATENT_METHODS:
        expected = ", ".join(LATENT_METHODS)
        raise ValueError(f"method {name!r}: unknown to a prior of background errors, expected one of {expected}")


def complete_settings(name: str, model: LatentModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a method of :data:`LATENT_METHODS` is run with: the settings given, and all that it reads besides.

    Raises:
        ValueError: as :func:`latent_optimisation`.
    """
    usual: dict[str, Any] = {"iterations": DEFAULT_ITERATIONS, "width": MASK_WIDTH, "ensemble": DEFAULT_SHARE}
    if not joins_ensemble(name, model):
        del usual["ensemble"]
    settings = {key: value for key, value in usual.items() if name in READ_BY[key]} | dict(given)
    if name in READ_BY["sampler"] and settings.get("sampler") is None:
        settings["sampler"] = usual_sampler(name, model.space.encoded)
    if name in OPTIMISED:
        chosen = asdict(latent_optimisation(name, settings["sampler"], settings.get("optimisation") or {}))
        del chosen["sampler"]
        settings["optimisation"] = chosen.pop("optimiser") | chosen
    return settings


def make_latent_method(
    name: str,
    model: LatentModel,
    lead: int,
    *,
    sampler: Sampler | None = None,
    optimisation: Mapping[str, Any] | None = None,
    gamma: float | None = None,
    iterations: int | None = None,
    scale: float = 1.0,
    width: float | None = None,
    ensemble: EnsembleShare | None = DEFAULT_SHARE,
    batch: int | None = None,
    device: str = "cpu",
    progress: Callable[[], None] | None = None,
) -> Method:
    """A method about backgrounds of one lead; a setting that it does not read is refused.

    Args:
        name: one of :data:`LATENT_METHODS`.
        model: a prior of background errors.
        lead: in h.
        sampler: None for :func:`usual_sampler`.
        optimisation: of LO-SDA and PhyDA+, settings of :class:`genda.methods.losda.LatentOptimisationGuidance` and of
            :class:`genda.guidance.latent_optimisation.Optimiser` that differ from :func:`usual_schedule` and their defaults.
        gamma: Γ of DPS; None for the least with which it is stable, or 0.03.
        iterations: of MMPS, :data:`genda.guidance.mmps.DEFAULT_ITERATIONS` by default.
        scale: factor on the covariance of background errors, and its root on their mean: of backgrounds better or worse than
            those of the prior's training. An ensemble's covariance is left as it is.
        width: of DiffDA's mask, m, :data:`MASK_WIDTH` by default.
        ensemble: how the covariance of the background's ensemble joins the prior's Gaussian where a background has one; None
            leaves it out, as a PhyDA does whose increments are about the background.
        batch: members at a time, None for all.
        device: where to sample.
        progress: called after every sampling step of every batch.

    Raises:
        ValueError: for an unknown name or setting, one the method does not read, or a lead the model was not trained on.
    """
    check_latent_name(name)
    given = {"sampler": sampler, "optimisation": optimisation, "gamma": gamma, "iterations": iterations, "width": width}
    refuse_unread(name, given | {"ensemble": None if ensemble is DEFAULT_SHARE else ensemble}, READ_BY)
    prior, device = model.prior(lead), known_device(device)
    prior = prior if scale == 1.0 else prior.scaled(scale)
    sampler = sampler or usual_sampler(name, model.space.encoded)
    if name == "latent-3d-var":
        return LatentVariational(prior, device=device)
    if name == "latent-gaussian":
        return LatentGaussian(prior, None if ensemble is None else partial(ensemble.base, model), device=device)
    if name == "diffda":
        if model.space.encoded:
            found = f"a latent of kind {model.space.spec.kind}"
            raise ValueError(
                f"diffda: found {found}, expected a prior of the errors of states, without autoencoder, such as diffda"
            )
        points = torch.as_tensor(sphere(model.grid)).float()
        distance = torch.cdist(points, points)
        return DiffDA(prior, distance, MASK_WIDTH if width is None else width, sampler, batch, device, progress)
    guidance = _guidance(name, sampler, optimisation, gamma, iterations)
    shown = name in SHOWN
    if shown and prior.error is None:
        raise ValueError(
            f"method {name!r}: found a network that is shown no observations, expected a prior trained to, such as phyda"
        )
    joined = joins_ensemble(name, model)
    if not joined and ensemble not in (None, DEFAULT_SHARE):
        raise ValueError(f"ensemble: found one for {name} with increments about the background, expected none")
    base = partial(ensemble.base, model) if ensemble is not None and joined else None
    return LatentSampling(prior, guidance, sampler, base, shown=shown, batch=batch, device=device, progress=progress)


def _guidance(
    name: str,
    sampler: Sampler,
    optimisation: Mapping[str, Any] | None,
    gamma: float | None,
    iterations: int | None,
) -> LatentGuidance:
    """How samples meet the observations, beyond what the network saw of them."""
    if name in OPTIMISED:
        return latent_optimisation(name, sampler, optimisation or {})
    if name == "latent-dps":
        return partial(_dps, sampler, gamma)
    if name == "latent-mmps":
        return partial(MMPS, iterations=DEFAULT_ITERATIONS if iterations is None else iterations)
    return lambda about, _: about


def _dps(sampler: Sampler, gamma: float | None, about: Increments, problem: Problem) -> SDA:
    """DPS with the Γ it takes: zero, the paper's, diverges."""
    if gamma is not None:
        return SDA(about, problem, gamma=gamma)
    limits = stable_gammas(sampler, problem.sources, torch.zeros(1, *about.shape).to(about.latent))
    return SDA(about, problem, gamma=default_gammas(limits))


def latent_optimisation(name: str, sampler: Sampler, given: Mapping[str, Any]) -> LatentOptimisationGuidance:
    """The guidance of a method of :data:`OPTIMISED`: its :func:`usual_schedule` with the settings given.

    Raises:
        ValueError: naming a setting that is unknown or makes no sense.
    """
    scheduling = [
        field.name for field in fields(LatentOptimisationGuidance) if field.name not in ("sampler", "optimiser")
    ]
    optimiser = {key: value for key, value in given.items() if key not in scheduling}
    schedule = usual_schedule(name) | {key: value for key, value in given.items() if key in scheduling}
    known = (*scheduling, *(field.name for field in fields(Optimiser)))
    made = checked_settings("optimisation", Optimiser, optimiser, known)
    return checked_settings(
        "optimisation", LatentOptimisationGuidance, {"sampler": sampler, "optimiser": made, **schedule}
    )
