r"""Gaussian guidance: the likelihood with a covariance cov(x | x_t) known in closed form.

    D_post(x_t) = D(x_t) + V Hᵀ (H V Hᵀ + R)^{-1} (y - H(D(x_t))),        V = cov(x | x_t) under a Gaussian

With the Gaussian's own denoiser as D this is the exact posterior. With a trained D it is Jacobian-free moment matching: no
derivative of the network, at the price of the Gaussian's covariance in place of the network's own.

Reference: the Kalman update at every noise level; Rozet et al. 2024 for the approximation with a trained prior.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser
from genda.diffusion.gaussian import GaussianDenoiser
from genda.linalg import conjugate_gradient
from genda.problem import Problem


class GaussianGuidance:
    """The posterior denoiser under a Gaussian conditional covariance; linear operators only.

    Args:
        prior: D.
        problem: its sources are the likelihood; without any the prior comes back.
        covariance: gives V; the prior itself when it is Gaussian.
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
        self.prior, self._covariance = prior, covariance
        self._iterations, self._tolerance = iterations, tolerance
        self._source = problem.stacked() if problem.sources else None

    @torch.no_grad()
    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        estimate = self.prior(x_t, sigma, condition)
        if self._source is None:
            return estimate
        source = self._source

        def field(u: Tensor) -> Tensor:
            """V Hᵀ u."""
            return self._covariance.conditional_covariance(source.operator.adjoint(u), sigma)  # type: ignore[attr-defined]

        def product(u: Tensor) -> Tensor:
            return source.covariance @ u + source.operator(field(u))

        return estimate + field(conjugate_gradient(product, source.misfit(estimate), self._iterations, self._tolerance))
