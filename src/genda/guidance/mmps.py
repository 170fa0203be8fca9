r"""Moment-matching posterior sampling (MMPS): the likelihood with the covariance the denoiser itself implies.

    cov(x | x_t) ≈ V = sigma² ∂D/∂x_t
    (R + H V Hᵀ) u = y - H(D(x_t)),        D_post(x_t) = D(x_t) + V Hᵀ u

Exact for a Gaussian prior with enough Krylov iterations; three to five are calibrated in practice and nothing is left to tune.
A learned V is not quite symmetric, hence GMRES. V Hᵀ u is built from the fields that GMRES has already computed, so that k
iterations cost k vector-Jacobian products after the one forward pass.

Reference: Rozet et al. 2024, arXiv 2405.13712, Eq. 17 to 20.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser, per_sample
from genda.linalg import gmres
from genda.problem import Problem


class MMPS:
    """The posterior denoiser of MMPS.

    Args:
        prior: D.
        problem: its sources are the likelihood, each with its own R; without any the prior comes back.
        iterations: k, the GMRES iterations.
        scale: lambda_g, a factor on the likelihood increment (1 is Bayes).
    """

    def __init__(self, prior: Denoiser, problem: Problem, iterations: int = 3, scale: float = 1.0) -> None:
        if iterations < 1:
            raise ValueError(f"MMPS iterations: found {iterations}, expected at least 1")
        self.prior, self._iterations, self._scale = prior, iterations, scale
        self._source = problem.stacked() if problem.sources else None

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        if self._source is None:
            return self.prior(x_t, sigma, condition)
        source, level = self._source, per_sample(sigma, x_t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            estimate = self.prior(x_t, sigma, condition)
            observed = source.operator(estimate)
        fixed = estimate.detach()
        fields: list[Tensor] = []

        def product(u: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(observed, x_t, u.to(observed), retain_graph=True)
            fields.append(level**2 * pulled)
            return source.covariance @ u + source.operator.tangent(fixed, fields[-1]).to(u)

        misfit = (source.values.to(observed) - observed.detach()).double()
        _, coefficients = gmres(product, misfit, self._iterations)
        increment = torch.einsum("kbchw,bk->bchw", torch.stack(fields), coefficients.to(fixed))
        return fixed + self._scale * increment
