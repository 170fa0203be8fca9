r"""LO-SDA: latent diffusion given the background, with latent optimisation on the way down.

The reverse process of :class:`genda.methods.latent.LatentSampling`; at scheduled steps the estimate of the clean latent is replaced
by the minimiser of misfit and distance from it (:mod:`genda.guidance.latent_optimisation`).

    for levels σ_1 > … > σ_N:
        ê  = D(e_t; σ_i | x_b)
        e* = argmin ½ ‖y - H(x_b + decode(e))‖²_R + ½ ‖e - ê‖²_{C_i}     if step i is scheduled, otherwise ê
        e_t = e* + σ_{i+1} (√(1 - f) (e_t - e*)/σ_i + √f ε)

with f = 0, the step made second-order by the estimate e* of the step before (``multistep``) or by Heun's correction, unless the
sampler draws a share f = ``fresh`` (1 - (σ_{i+1}/σ_i)²) of the noise anew, which re-injects the solution as ReSample does.

References:
    Fei et al. 2025, arXiv 2510.22562; Song et al. 2024, arXiv 2307.08123 (ReSample); what is reconstructed: docs/losda.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from genda.diffusion.denoiser import Denoiser
from genda.diffusion.increments import Increments
from genda.diffusion.sampler import Sampler
from genda.guidance.latent_optimisation import LatentOptimisation, Optimiser
from genda.problem import Problem


@dataclass(frozen=True)
class LatentOptimisationGuidance:
    """The guidance of LO-SDA with its schedule.

    Attributes:
        sampler: whose levels are scheduled.
        every: among the scheduled share, optimise at every n-th step, counted from the last.
        last: share of the steps, the last ones, that is scheduled; 0 never optimises.
        metric, reach, optimiser: see :class:`genda.guidance.latent_optimisation.LatentOptimisation`.
    """

    sampler: Sampler
    every: int = 1
    last: float = 1.0
    metric: Literal["covariance", "isotropic", "strict"] = "covariance"
    reach: float = 1.0
    optimiser: Optimiser = field(default_factory=Optimiser)

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.last <= 1:
            raise ValueError(f"schedule: found every {self.every}, last {self.last:g}, expected >= 1 and from 0 to 1")
        if not self.reach > 0:
            raise ValueError(f"schedule: found reach {self.reach:g}, expected a positive number")
        chosen = [self.scheduled(float(level)) for level in self.sampler.levels[:-1]]
        if self.sampler.multistep and any(chosen) and not all(chosen):
            # what the step before was moved by would be taken for a trend
            found = f"found multistep with every {self.every}, last {self.last:g}"
            raise ValueError(f"schedule: {found}, expected multistep: false where steps differ")

    def __call__(self, about: Increments, problem: Problem) -> Denoiser:
        return LatentOptimisation(
            about,
            problem,
            metric=self.metric,
            reach=self.reach,
            optimiser=self.optimiser,
            scheduled=self.scheduled,
        )

    def scheduled(self, sigma: float) -> bool:
        """Whether to optimise at a noise level; one between two steps, where churn starts, belongs to the nearer."""
        levels = self.sampler.levels[:-1]
        step = int((levels.log() - levels.new_tensor(sigma).log()).abs().argmin())
        from_end = len(levels) - 1 - step
        return from_end < round(self.last * len(levels)) and from_end % self.every == 0
