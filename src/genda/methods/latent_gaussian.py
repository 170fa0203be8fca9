r"""3D-Var in a latent space with the covariance of the Gaussian that a prior's network corrects: what is left without the network.

    e = C Hᵀ (H C Hᵀ + R)^{-1} (y - H(x_b + decode(0))),        x = x_b + decode(e)

Where the background comes with members their localised covariance joins C, and the analysis is that of a hybrid EnVar.

Reference: Courtier 1997, Q. J. R. Meteorol. Soc. 123, 2449 (the dual form of 3D-Var).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genda.diffusion.hybrid_gaussian import EnsembleBase
from genda.diffusion.increments import IncrementPrior, Increments
from genda.guidance.latent_optimisation import LatentOptimisation, Optimiser
from genda.problem import Problem

UNKNOWN = 1.0e5
"""A noise level at which an increment tells nothing: no pattern of them is a hundredth as large."""


@dataclass(frozen=True)
class LatentGaussian:
    """The method; deterministic.

    Attributes:
        prior: its autoencoder, scales and Gaussian are used, the network is not.
        ensemble: gives how the covariance of the problem's ensemble joins the Gaussian; None leaves ensembles out.
        outer: linearisations of an operator that is not linear.
        device: where to minimise.
    """

    prior: IncrementPrior
    ensemble: Callable[[], EnsembleBase] | None = None
    outer: int = 3
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        about = about_background(self.prior, problem, self.ensemble, self.device)
        linear = all(source.operator.linear for source in problem.sources)
        return about.decode(gaussian_analysis(about, problem, outer=1 if linear else self.outer))


def about_background(
    prior: IncrementPrior, problem: Problem, ensemble: Callable[[], EnsembleBase] | None, device: torch.device | str
) -> Increments:
    """Increments about a problem's background, its ensemble joined to their Gaussian where it has one and that is wanted.

    A background that is a mean of members is not damped, see :mod:`genda.diffusion.damping`.

    Raises:
        ValueError: for a problem without a background.
    """
    background = problem.first_guess("latent methods").to(device)
    about = prior.to(device).about(
        background, problem.condition, averaged=problem.averaged or problem.background is None
    )
    if ensemble is None or problem.ensemble is None:
        return about
    return about.joined_by(problem.ensemble.to(device), ensemble())


def gaussian_analysis(about: Increments, problem: Problem, outer: int = 1) -> Tensor:
    """E[e | y] under the Gaussian that the network corrects, shape (1, latent, lat, lon).

    Args:
        about: increments about a background.
        problem: observations of states.
        outer: linearisations.
    """
    nothing = torch.zeros(1, *about.shape).to(about.latent)
    optimisation = LatentOptimisation(
        about.denoiser.base, about.observed(problem, near=True), optimiser=Optimiser(iterations=outer)
    )
    analysis: Tensor = optimisation(nothing, nothing.new_tensor(UNKNOWN))
    return analysis
