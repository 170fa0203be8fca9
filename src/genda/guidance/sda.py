r"""Score-based data assimilation (SDA) and its limit, diffusion posterior sampling (DPS).

    log p(y | x_t) ≈ -1/2 Σ_s lambda_s ‖y_s - H_s(D(x_t))‖² / (R_s + sigma² Γ_s)
    D_post(x_t) = D(x_t) + lambda_g sigma² ∇ log p(y | x_t)

Γ = 0 is DPS with the squared norm. Eq. 13 of the multimodal paper is written without the 1/2 of a Gaussian; taken to the
letter it is ``scale=2`` here, and it doubles the weight of the data.

Γ stands for H cov(x | x_t) Hᵀ / sigma², which no constant is at every level: a small one diverges (see
:func:`smallest_stable_gamma`), a large one leaves the sample between prior and data. MMPS needs no such constant.

References:
    Chung et al. 2022, arXiv 2209.14687; Rozet and Louppe 2023, arXiv 2306.10574, Eq. 12; Chakraborty et al. 2025, Eq. 13 and 14.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser, per_sample
from genda.diffusion.guided import Guided
from genda.diffusion.sampler import Sampler
from genda.problem import Problem, Source

logger = logging.getLogger(__name__)

DEFAULT_GAMMA = 0.03
"""Γ near which SDA came closest to exact posteriors in small Gaussian cases, points and block means alike."""


class SDA(Guided):
    """The posterior denoiser of SDA.

    Args:
        prior: D.
        problem: its sources are the likelihood; without any the prior comes back.
        gamma: Γ, one for all sources or one per source name.
        scale: lambda_g.
        clip: largest rms of the increment lambda_g sigma² ∇ log p, per member, in normalised units; None never clips.

    Attributes:
        clipped: how many member-steps were clipped so far.
    """

    def __init__(
        self,
        prior: Denoiser,
        problem: Problem,
        gamma: float | Mapping[str, float] = DEFAULT_GAMMA,
        scale: float = 1.0,
        clip: float | None = None,
    ) -> None:
        problem = replace(problem, sources=tuple(source.independent for source in problem.sources))
        self.prior, self._problem, self._scale, self._clip = prior, problem, scale, clip
        self._gammas = [gamma[s.name] if isinstance(gamma, Mapping) else gamma for s in problem.sources]
        for source, value in zip(problem.sources, self._gammas, strict=True):
            if value < 0:
                raise ValueError(f"gamma of {source.name}: found {value:g}, expected zero or more")
        self.clipped = 0

    def terms(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not self._problem.sources:
            return self.prior(x_t, sigma, condition), torch.zeros_like(x_t)
        level = per_sample(sigma, x_t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            estimate = self.prior(x_t, sigma, condition)
            log_likelihood = torch.zeros((), dtype=x_t.dtype, device=x_t.device)
            for source, gamma in zip(self._problem.sources, self._gammas, strict=True):
                variance = source.covariance.variance.to(x_t) + gamma * level.flatten(1) ** 2  # type: ignore[attr-defined]
                log_likelihood = log_likelihood - 0.5 * source.weight * (source.misfit(estimate) ** 2 / variance).sum()
            (gradient,) = torch.autograd.grad(log_likelihood, x_t)
        return estimate.detach(), self._clipped(self._scale * level**2 * gradient)

    def _clipped(self, increment: Tensor) -> Tensor:
        if self._clip is None:
            return increment
        rms = increment.flatten(1).pow(2).mean(dim=1).sqrt()
        acting = int((rms > self._clip).sum())
        if acting and not self.clipped:
            logger.warning(
                "likelihood increment clipped to rms %g; further clipping is counted, not announced", self._clip
            )
        self.clipped += acting
        return increment * per_sample((self._clip / rms).clamp(max=1.0), increment)


def smallest_stable_gamma(
    levels: Tensor, variance: float, redundancy: float = 1.0, starts: Tensor | None = None
) -> float:
    """The least Γ with which explicit steps along ``levels`` do not overshoot the data.

    Along a direction of prior variance c the Jacobian of the denoiser is J = c / (c + sigma²); a step of relative length
    h = 1 - t'/t multiplies the misfit by 1 - h rho J² sigma² / (R + sigma² Γ), with rho the largest eigenvalue of H Hᵀ, and is
    stable while the second term is below 2. Planetary waves have c of thousands on a grid, so that J is taken as 1. Measured
    limits for points at R^½ = 0.022 are .3, .1 and .03 for 16, 64 and 128 Karras steps; this bound gives .26, .07 and .04.

    Args:
        levels: the sampler's noise levels, shape (steps + 1,).
        variance: R, normalised units, the smallest of the source.
        redundancy: rho, see :func:`redundancy`.
        starts: the levels from which the steps start after churn, shape (steps,); ``levels[:-1]`` without it.
    """
    sigma = levels[:-1] if starts is None else starts
    needed = redundancy * (1 - levels[1:] / sigma) / 2 - variance / sigma**2
    return max(0.0, float(needed.max()))


def stable_gammas(sampler: Sampler, sources: Sequence[Source], x: Tensor) -> dict[str, float]:
    """The least Γ of each source with which SDA is stable for all of them together, see :func:`smallest_stable_gamma`.

    Every source gets an equal part of what an explicit step can bear; a weight lambda divides R and Γ alike. A nonlinear H is
    linearised at ``x``, (1, channel, lat, lon).
    """
    levels = sampler.levels
    starts = torch.tensor([sampler.churned(float(t)) for t in levels[:-1]], dtype=levels.dtype)
    limits = {}
    for source in (source.independent for source in sources):
        variance = float(source.covariance.variance.min()) / source.weight  # type: ignore[attr-defined]
        limit = smallest_stable_gamma(levels, variance, redundancy(source, x) * len(sources), starts)
        limits[source.name] = source.weight * limit
    return limits


def default_gammas(limits: Mapping[str, float]) -> dict[str, float]:
    """Γ of each source where none is given: 0.03, or its limit of stability."""
    return {name: max(DEFAULT_GAMMA, limit) for name, limit in limits.items()}


@torch.no_grad()
def redundancy(source: Source, x: Tensor, iterations: int = 30) -> float:
    """The largest eigenvalue of H Hᵀ about a state (1, channel, lat, lon), by power iteration: 1 for separate points, more for
    clusters, less for averages."""
    v = torch.ones(1, len(source.values)).to(x)
    value = 1.0
    for _ in range(iterations):
        image = source.operator.tangent(x, source.adjoint(x, v))
        value = float(image.norm() / v.norm())
        v = image / image.norm()
    return value
