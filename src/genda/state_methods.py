"""Methods on a prior of states, by name; as :func:`genda.latent_methods.make_latent_method` is for priors of background errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from genda.checkpoint import Model
from genda.diffusion.gaussian import SphericalGaussian
from genda.diffusion.sampler import Sampler
from genda.guidance.gaussian import GaussianGuidance
from genda.guidance.mmps import DEFAULT_ITERATIONS, MMPS
from genda.guidance.sda import DEFAULT_GAMMA, SDA, default_gammas, stable_gammas
from genda.methods import Method
from genda.methods.fusion import Fusion, Guidance
from genda.methods.optimal_interpolation import OptimalInterpolation
from genda.parallel import known_device
from genda.problem import Source
from genda.settings import refuse_unread

METHODS = ("fusion", "fusion-sda", "fusion-gaussian", "optimal-interpolation", "unconditional")
READ_BY = {
    "sampler": tuple(name for name in METHODS if name != "optimal-interpolation"),
    "errors": tuple(name for name in METHODS if name != "optimal-interpolation"),
    "iterations": ("fusion",),
    "gamma": ("fusion-sda",),
    "guidance_scale": ("fusion", "fusion-sda"),
    "clip": ("fusion-sda",),
}
"""The methods that read each setting."""


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


def complete_settings(name: str, model: Model, sources: Sequence[Source], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a method of :data:`METHODS` is run with on some observations: the settings given, and all that it reads besides."""
    settings = ({"iterations": DEFAULT_ITERATIONS} if name in READ_BY["iterations"] else {}) | dict(given)
    if name in READ_BY["sampler"] and settings.get("sampler") is None:
        settings["sampler"] = default_sampler(model)
    if name in READ_BY["gamma"] and settings.get("gamma") is None:
        state = torch.zeros(1, len(model.channels), *model.grid.shape)
        settings["gamma"] = default_gammas(stable_gammas(settings["sampler"], sources, state))
    return settings


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
        iterations: of MMPS, :data:`genda.guidance.mmps.DEFAULT_ITERATIONS` by default.
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
            iterations=DEFAULT_ITERATIONS if iterations is None else iterations,
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
