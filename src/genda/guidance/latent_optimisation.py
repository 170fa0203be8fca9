r"""Latent optimisation (LO-SDA): at scheduled noise levels the estimate is moved until it fits the observations.

    D_post(z_t) = argmin_z ½ ‖y - H(z)‖²_R + ½ ‖z - D(z_t)‖²_{C_t}

H holds the decoder, if there is one (:class:`genda.observations.operators.Composed`). C_t is what is left to know at this level:

- ``covariance``: cov(z | z_t) of the Gaussian that the denoiser corrects; for a linear problem the minimiser is the posterior mean;
- ``isotropic``: r_t² = r² sigma² / (1 + sigma²), the same for latents of unit variance that nothing relates to each other;
- ``strict``: no second term, the paper's strict consistency. Only an early stop keeps it from fitting noise.

Three ways down: Gauss–Newton in observation space, L-BFGS, and Adam, which the paper's family uses. Conjugate gradients solve its
linearisations. They hardly converge for observations without noise, unless H' is a constant matrix and the Gaussian can tell C_t
between the channels of a point: then :class:`genda.guidance.within_points.WithinPoints` preconditions them.
Morozov's rule stops a member whose misfit ‖y - H(z)‖²_R has come to tau times the number of observations. A minimisation that ends
higher than it began, or not finite, is dropped for the prior's own estimate, and counted.

References:
    Fei et al. 2025, arXiv 2510.22562 (LO-SDA; no code, the algorithm is that of its family); Song et al. 2024, arXiv 2307.08123
    (ReSample); Morozov 1966, Soviet Math. Dokl. 7, 414.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser, per_sample
from genda.diffusion.gaussian import GaussianDenoiser, own_covariance
from genda.diffusion.guided import Guided
from genda.guidance.gaussian import kalman_increment
from genda.guidance.within_points import WithinPoints
from genda.observations.operators import LinearOperator, tangent_matrix
from genda.problem import Problem, Source

logger = logging.getLogger(__name__)

PRODUCTS, TOLERANCE = 100, 1e-3
"""Of conjugate gradients that are preconditioned: products at most, and the residual at which they stop."""


@dataclass(frozen=True)
class Optimiser:
    """How to minimise.

    Attributes:
        kind: ``gauss-newton``, ``lbfgs`` or ``adam``.
        iterations: linearisations of Gauss–Newton, steps of the others.
        inner: conjugate gradients of each linearisation, where nothing preconditions them.
        rate: of Adam.
        discrepancy: tau of Morozov's rule; None fits until the iterations are spent.
    """

    kind: Literal["gauss-newton", "lbfgs", "adam"] = "gauss-newton"
    iterations: int = 1
    inner: int = 30
    rate: float = 0.05
    discrepancy: float | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.inner < 1:
            raise ValueError(
                f"optimiser: found {self.iterations} iterations of {self.inner}, expected at least one of each"
            )
        if not self.rate > 0 or (self.discrepancy is not None and not self.discrepancy > 0):
            found = f"found rate {self.rate:g}, discrepancy {self.discrepancy}"
            raise ValueError(f"optimiser: {found}, expected positive numbers")


class LatentOptimisation(Guided):
    """The posterior denoiser of LO-SDA.

    Args:
        prior: D.
        problem: its sources are the likelihood; without any the prior comes back.
        metric: what C_t is.
        covariance: gives cov(z | z_t) for ``covariance``, unless the prior knows its own.
        reach: r, of ``isotropic``.
        optimiser: how to minimise.
        scheduled: at which noise levels to optimise; everywhere where None.

    Attributes:
        fallbacks: how many member-steps kept the prior's estimate because the minimisation failed.

    Raises:
        ValueError: for a metric that the optimiser or the prior can't serve.
    """

    def __init__(
        self,
        prior: Denoiser,
        problem: Problem,
        *,
        metric: Literal["covariance", "isotropic", "strict"] = "covariance",
        covariance: GaussianDenoiser | None = None,
        reach: float = 1.0,
        optimiser: Optimiser = Optimiser(),
        scheduled: Callable[[float], bool] | None = None,
    ) -> None:
        self.prior, self._metric, self._reach, self._optimiser = prior, metric, reach, optimiser
        self._covariance = own_covariance(prior, covariance)
        if metric == "covariance" and self._covariance is None:
            raise ValueError("latent optimisation: found no Gaussian near the prior, expected one for its covariance")
        if (metric == "covariance") != (optimiser.kind == "gauss-newton") and metric != "isotropic":
            raise ValueError(
                f"latent optimisation: found metric {metric!r} with {optimiser.kind}, expected 'covariance' with "
                "gauss-newton, 'strict' with lbfgs or adam, or 'isotropic'"
            )
        self._source, self._shape = problem.stacked if problem.sources else None, problem.shape
        self._scheduled = scheduled
        self.fallbacks = 0

    def terms(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            estimate = self.prior(x_t, sigma, condition)
        source = self._source
        if source is None or (self._scheduled is not None and not self._scheduled(float(sigma.flatten()[0]))):
            return estimate, torch.zeros_like(estimate)
        if self._optimiser.kind == "gauss-newton":
            moved = self._gauss_newton(source, estimate, sigma)
        else:
            moved = self._descend(source, estimate, sigma)
        return estimate, self._accepted(source, estimate, moved)

    @torch.no_grad()
    def _gauss_newton(self, source: Source, estimate: Tensor, sigma: Tensor) -> Tensor:
        x = estimate
        for _ in range(self._optimiser.iterations):
            misfit = source.misfit(x)
            unsolved = ~self._fits(misfit, source)
            if not bool(unsolved.any()):
                break
            towards = misfit if x is estimate else misfit + source.operator.tangent(x, x - estimate)
            step = self._step(source, x, towards, sigma)
            x = torch.where(per_sample(unsolved, x), estimate + step, x)
        return x

    def _step(self, source: Source, x: Tensor, towards: Tensor, sigma: Tensor) -> Tensor:
        """C_t Hᵀ (H C_t Hᵀ + R)^{-1} d, with H linearised at ``x``."""
        level, spread = sigma.flatten()[0], lambda v: self._spread(v, sigma)
        if self._preconditioned is None or not bool((sigma == level).all()):
            return kalman_increment(spread, source, x, towards, self._optimiser.inner, 1e-4)
        linear, within = self._preconditioned
        return kalman_increment(spread, linear, x, towards, PRODUCTS, TOLERANCE, within.near(float(level)))

    @cached_property
    def _preconditioned(self) -> tuple[Source, WithinPoints] | None:
        """The source with H' as a matrix, and what preconditions H C_t Hᵀ + R; None where H' is none or C_t can't be told."""
        source, local = self._source, getattr(self._covariance, "local_covariance", None)
        if source is None or local is None or self._metric != "covariance":
            return None
        rows = tangent_matrix(source.operator)
        if rows is None:
            return None
        linear = replace(source, operator=LinearOperator(rows, self._shape))
        return linear, WithinPoints(rows, self._shape, source.covariance.variance, local)  # type: ignore[attr-defined]

    def _descend(self, source: Source, estimate: Tensor, sigma: Tensor) -> Tensor:
        """Adam or L-BFGS, each member on its own."""
        weight = 0.0 if self._metric == "strict" else 1.0 / self._variance(sigma, estimate)
        return torch.cat([self._descend_one(source, x.unsqueeze(0), weight, i) for i, x in enumerate(estimate)])

    def _descend_one(self, source: Source, estimate: Tensor, weights: Tensor | float, member: int) -> Tensor:
        weight = weights if isinstance(weights, float) else weights.flatten()[min(member, weights.numel() - 1)]
        x = estimate.clone().requires_grad_()
        optimiser: torch.optim.Optimizer = (
            torch.optim.Adam([x], self._optimiser.rate)
            if self._optimiser.kind == "adam"
            else torch.optim.LBFGS([x], max_iter=1, history_size=10, line_search_fn="strong_wolfe")
        )

        def cost() -> Tensor:
            misfit = source.misfit(x)
            total = 0.5 * (misfit * source.covariance.inverse(misfit)).sum()
            return total + 0.5 * weight * (x - estimate).square().sum()

        def closure() -> Tensor:
            optimiser.zero_grad()
            with torch.enable_grad():
                value = cost()
                value.backward()  # type: ignore[no-untyped-call]
            return value

        for _ in range(self._optimiser.iterations):
            with torch.no_grad():
                if bool(self._fits(source.misfit(x), source)):
                    break
            optimiser.step(closure)  # type: ignore[arg-type]
            if not bool(torch.isfinite(x).all()):
                return torch.full_like(estimate, math.nan)
        return x.detach()

    def _fits(self, misfit: Tensor, source: Source) -> Tensor:
        """Whether Morozov's rule is met, (batch,)."""
        if self._optimiser.discrepancy is None:
            return torch.zeros(len(misfit), dtype=torch.bool, device=misfit.device)
        chi_square = (misfit * source.covariance.inverse(misfit)).mean(dim=-1)
        return chi_square <= self._optimiser.discrepancy

    def _variance(self, sigma: Tensor, like: Tensor) -> Tensor:
        noise = per_sample(sigma.to(like), like) ** 2
        return self._reach**2 * noise / (1 + noise)

    def _spread(self, v: Tensor, sigma: Tensor) -> Tensor:
        """C_t v."""
        if self._metric == "covariance" and self._covariance is not None:
            return self._covariance.conditional_covariance(v, sigma)
        return self._variance(sigma, v) * v

    @torch.no_grad()
    def _accepted(self, source: Source, estimate: Tensor, moved: Tensor) -> Tensor:
        """The increment, zero for members that did not come nearer to the observations."""
        before, after = ((m * source.covariance.inverse(m)).sum(dim=-1) for m in map(source.misfit, (estimate, moved)))
        better = (after <= before * (1 + 1e-6)) & torch.isfinite(moved).flatten(1).all(dim=1)
        failed = int((~better).sum())
        if failed and not self.fallbacks:
            logger.warning(
                "latent optimisation failed at a step, which keeps the prior's estimate; further ones are counted"
            )
        self.fallbacks += failed
        return torch.where(per_sample(better, moved), moved - estimate, torch.zeros_like(moved))
