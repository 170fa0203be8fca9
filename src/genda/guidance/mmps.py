r"""Moment-matching posterior sampling (MMPS): the likelihood with the covariance the denoiser itself implies.

    cov(x | x_t) ≈ V = sigma² ∂D/∂x_t
    (R + H V Hᵀ) u = y - H(D(x_t)),        D_post(x_t) = D(x_t) + V Hᵀ u

Exact for a Gaussian prior with enough Krylov iterations. A learned V is not quite symmetric, hence GMRES. V Hᵀ u is built
from the fields that GMRES has already computed, so that k iterations cost k vector-Jacobian products after the one forward
pass. Clustered observations need many iterations (27,000 of them in radiosonde columns: dozens); a Gaussian whose
conditional covariance C is known in closed form takes their place as a preconditioner,

    w -> z ≈ (R + H C Hᵀ)^{-1} w      by a few conjugate gradients without any network,

because V differs from C only by what the network has learned beyond the Gaussian. GMRES is then flexible: it combines the
fields of the z, whatever inner iteration made them.

Reference: Rozet et al. 2024, arXiv 2405.13712, Eq. 17 to 20.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser, per_sample
from genda.diffusion.gaussian import GaussianDenoiser, own_covariance
from genda.diffusion.guided import Guided
from genda.linalg import conjugate_gradient, gmres
from genda.problem import Problem, Source

DEFAULT_ITERATIONS = 3
"""Of GMRES, where a method is made by its name."""


class MMPS(Guided):
    """The posterior denoiser of MMPS.

    Args:
        prior: D.
        problem: its sources are the likelihood, each with its own R; without any the prior comes back.
        iterations: k, the GMRES iterations.
        scale: lambda_g, a factor on the likelihood increment (1 is Bayes).
        preconditioner: a Gaussian near the prior, such as the base of its denoiser, for a prior that has no conditional
            covariance of its own; idle for nonlinear operators.
        inner: conjugate-gradient iterations of the preconditioner.
    """

    def __init__(
        self,
        prior: Denoiser,
        problem: Problem,
        iterations: int = 3,
        scale: float = 1.0,
        preconditioner: GaussianDenoiser | None = None,
        inner: int = 8,
    ) -> None:
        if iterations < 1:
            raise ValueError(f"MMPS iterations: found {iterations}, expected at least 1")
        self.prior, self._iterations, self._scale = prior, iterations, scale
        self._source = problem.stacked if problem.sources else None
        linear = self._source is not None and self._source.operator.linear
        self._gaussian, self._inner = own_covariance(prior, preconditioner) if linear else None, inner

    def terms(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self._source is None:
            return self.prior(x_t, sigma, condition), torch.zeros_like(x_t)
        source, level = self._source, per_sample(sigma, x_t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            estimate = self.prior(x_t, sigma, condition)
            observed = source.observed(estimate)
        fixed = estimate.detach()
        fields: list[Tensor] = []

        def product(w: Tensor) -> Tensor:
            u = self._precondition(source, w, sigma, fixed)
            (pulled,) = torch.autograd.grad(observed, x_t, u.to(observed), retain_graph=True)
            fields.append(level**2 * pulled)
            return source.covariance @ u + source.operator.tangent(fixed, fields[-1]).to(u)

        misfit = (source.values.to(observed) - observed.detach()).double()
        _, coefficients = gmres(product, misfit, self._iterations)
        increment = torch.einsum("kbchw,bk->bchw", torch.stack(fields), coefficients.to(fixed))
        return fixed, self._scale * increment

    def _precondition(self, source: Source, w: Tensor, sigma: Tensor, like: Tensor) -> Tensor:
        """(R + H C Hᵀ)^{-1} w by conjugate gradients, shape (batch, m); w itself without a preconditioner."""
        gaussian = self._gaussian
        if gaussian is None:
            return w

        def covariance(u: Tensor) -> Tensor:
            field = gaussian.conditional_covariance(source.operator.adjoint(u), sigma)  # type: ignore[attr-defined]
            return source.covariance @ u + source.operator(field)

        return conjugate_gradient(covariance, w.to(like), self._inner).to(w)
