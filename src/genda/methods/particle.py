r"""The bootstrap particle filter: importance weights by the likelihood, systematic resampling.

    w_k ∝ exp(-½ (y - H(x_k))ᵀ R^{-1} (y - H(x_k)))

Exact as the number of particles grows, for any operator and any background, and useless in more than a few dimensions.
``jitter`` adds noise with the (weighted) covariance of the particles times jitter² n^{-2/(d+4)} after resampling, the kernel
density bandwidth, without which a deterministic model keeps copies of one particle for ever.

Reference: Gordon et al. 1993, IEE Proc. F 140, 107; Silverman 1986 (bandwidth).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.problem import Problem


@dataclass(frozen=True)
class ParticleFilter:
    """The method.

    Attributes:
        jitter: of resampled particles, in units of the kernel bandwidth.
    """

    jitter: float = 1.0

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        particles = problem.background_members(type(self).__name__)
        weights = importance_weights(problem, particles)
        chosen = systematic_resampling(weights, members, generator)
        resampled = particles[chosen]
        if not self.jitter:
            return resampled
        flat = particles.flatten(1)
        mean = weights @ flat
        deviations = (flat - mean) * weights.sqrt().unsqueeze(1)
        dimension = flat.shape[1]
        scale = self.jitter * members ** (-1.0 / (dimension + 4))
        _, singular, basis = torch.linalg.svd(deviations, full_matrices=False)
        white = torch.randn(members, len(singular), generator=generator, dtype=flat.dtype).to(flat)
        moved: Tensor = resampled + scale * ((white * singular) @ basis).view(resampled.shape)
        return moved


def importance_weights(problem: Problem, particles: Tensor) -> Tensor:
    """Normalised likelihoods of particles (n, channel, lat, lon), shape (n,)."""
    source = problem.stacked
    misfit = source.misfit(particles)
    return torch.softmax(-0.5 * (misfit * source.covariance.inverse(misfit)).sum(dim=-1), dim=0)


def systematic_resampling(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` draws with one uniform number, shape (count,)."""
    start = torch.rand((), generator=generator, dtype=torch.float64)
    positions = (start + torch.arange(count, dtype=torch.float64)) / count
    cumulative = weights.double().cpu().cumsum(dim=0)
    chosen: Tensor = torch.searchsorted(cumulative, positions * cumulative[-1]).clamp(max=len(weights) - 1)
    return chosen.to(weights.device)
