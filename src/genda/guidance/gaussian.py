r"""Gaussian guidance: the likelihood with a covariance known in closed form.

    D_post(x_t) = D(x_t) + V Hᵀ (H V Hᵀ + R)^{-1} (y - H(D(x_t))),        V = cov(x | x_t) under a Gaussian

With the Gaussian's own denoiser as D this is the exact posterior. With a trained D it is Jacobian-free moment matching: no
derivative of the network, at the price of the Gaussian's covariance in place of the network's own.

The same formula with the prior covariance C turns a draw x_p of the Gaussian into one of its posterior,

    x = x_p + C Hᵀ (H C Hᵀ + R)^{-1} (y + ε - H(x_p)),        ε ~ N(0, R)

which spares a sampler its highest noise levels (``start`` of :class:`genda.diffusion.sampler.Sampler`).

References:
    The Kalman update at every noise level; Rozet et al. 2024 for the approximation with a trained prior.
    Matheron's rule: Hoffman and Ribak 1991, ApJ 380 L5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser
from genda.diffusion.gaussian import GaussianDenoiser, SphericalGaussian, own_covariance
from genda.diffusion.guided import Guided
from genda.diffusion.noise import MemberNoise
from genda.linalg import Product, conjugate_gradient
from genda.problem import Problem, Source


def kalman_increment(
    covariance: Callable[[Tensor], Tensor],
    source: Source,
    x: Tensor,
    misfit: Tensor,
    iterations: int,
    tolerance: float,
    preconditioner: Product | None = None,
) -> Tensor:
    """C Hᵀ (H C Hᵀ + R)^{-1} d by conjugate gradients in observation space, (batch, channel, lat, lon).

    Observations of infinite error take no part.

    Args:
        covariance: product of C with fields.
        source: gives H and R; a nonlinear H is linearised at ``x``.
        x: shape (batch, channel, lat, lon).
        misfit: d, shape (batch, m).
        iterations: products at most.
        tolerance: relative residual at which they stop.
        preconditioner: an approximate (H C Hᵀ + R)^{-1}, (batch, m) to the same.
    """
    heard = torch.isfinite(source.covariance @ torch.ones_like(misfit))

    def field(u: Tensor) -> Tensor:
        return covariance(source.adjoint(x, u))

    def product(u: Tensor) -> Tensor:
        return torch.where(heard, source.covariance @ u + source.operator.tangent(x, field(u)), 0.0)

    d = torch.where(heard, misfit, 0.0)
    return field(conjugate_gradient(product, d, iterations, tolerance, preconditioner))


class GaussianGuidance(Guided):
    """The posterior denoiser under a Gaussian conditional covariance.

    Args:
        prior: D.
        problem: its sources are the likelihood; without any the prior comes back.
        covariance: gives V, unless the prior knows its own.
        iterations: of conjugate gradients, at most.
        tolerance: relative residual at which they stop.
    """

    def __init__(
        self,
        prior: Denoiser,
        problem: Problem,
        covariance: GaussianDenoiser,
        iterations: int = 100,
        tolerance: float = 1e-6,
    ) -> None:
        self.prior, self._covariance = prior, own_covariance(prior, covariance) or covariance
        self._iterations, self._tolerance = iterations, tolerance
        self._source = problem.stacked if problem.sources else None

    @torch.no_grad()
    def terms(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        estimate = self.prior(x_t, sigma, condition)
        if self._source is None:
            return estimate, torch.zeros_like(x_t)
        increment = kalman_increment(
            lambda v: self._covariance.conditional_covariance(v, sigma),
            self._source,
            estimate,
            self._source.misfit(estimate),
            self._iterations,
            self._tolerance,
        )
        return estimate, increment


@torch.no_grad()
def gaussian_posterior(
    prior: SphericalGaussian,
    problem: Problem,
    noise: MemberNoise,
    *,
    mean: Tensor | float = 0.0,
    iterations: int = 15,
) -> Tensor:
    """Draws of the posterior under a Gaussian prior, one for each member of the noise, (members, channel, lat, lon).

    Exact for linear operators and enough iterations; a nonlinear one is linearised at the prior draw. The first iterations
    resolve the planetary waves, which is all that a sampler's start must hold; many more let round-off grow, and with it
    the difference between batches.
    """
    x = mean + prior.sample(noise)
    if not problem.sources:
        return x
    source = problem.stacked
    perturbation = source.covariance.scale(noise.normal(source.values.shape, x))
    misfit = source.misfit(x) + perturbation
    return x + kalman_increment(prior.prior_covariance, source, x, misfit, iterations, 0.0)
