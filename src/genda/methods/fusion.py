r"""EDM multimodal fusion: a diffusion prior, any sources of observations, Algorithm 1 of the paper.

    p(x | y_1, y_2, …) ∝ p(x) Π_s N(y_s; H_s(x), R_s / lambda_s)

With no sources the members are draws of the prior. A background with Gaussian errors is one source more, which the prior takes up
(:class:`genda.guidance.background.GivenBackground`). The guidance decides how the likelihood enters at each noise level.

Reference: Chakraborty et al. 2025, Multimodal atmospheric super-resolution with deep generative models, arXiv 2506.22780.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genda.diffusion.denoiser import Conditioned, Denoiser
from genda.diffusion.gaussian import SphericalGaussian
from genda.diffusion.sampler import Sampler
from genda.guidance.background import GivenBackground
from genda.guidance.gaussian import gaussian_posterior
from genda.guidance.mmps import MMPS
from genda.problem import Problem

Guidance = Callable[[Denoiser, Problem], Denoiser]


@dataclass(frozen=True)
class Fusion:
    """The method.

    Attributes:
        denoiser: the prior.
        guidance: prior and problem to posterior denoiser, e.g. ``MMPS`` or ``partial(SDA, gamma=0.03)``.
        sampler: settings of Algorithm 1.
        start: a Gaussian near the prior, whose posterior draws the sampler starts from; zero without it, which needs a
            sampler from sigma_max = 80.
        errors: of the problem's background; a background without them is not used. Needs ``start``.
        batch: members at a time, None for all; bounds memory and changes nothing else.
        device: where to sample.
        progress: called after every sampling step of every batch.
    """

    denoiser: Denoiser
    guidance: Guidance = MMPS
    sampler: Sampler = field(default_factory=Sampler)
    start: SphericalGaussian | None = None
    errors: SphericalGaussian | None = None
    batch: int | None = None
    device: torch.device | str = "cpu"
    progress: Callable[[], None] | None = None

    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        prior: Denoiser = Conditioned(self.denoiser, problem.condition)
        mean, gaussian = torch.zeros(()), self.start
        if self.errors is not None and problem.background is not None:
            if self.start is None:
                raise ValueError("fusion: found background errors without a Gaussian near the prior, expected both")
            prior = GivenBackground(prior, self.start, self.errors, problem.background.to(self.device))
            mean, gaussian = prior.start()
        seed = int(torch.randint(2**62, (), generator=generator))
        return self.sampler.sample(
            self.guidance(prior, problem),
            problem.shape,
            members,
            seed,
            start=None if gaussian is None else lambda noise: gaussian_posterior(gaussian, problem, noise, mean=mean),
            batch=self.batch,
            device=self.device,
            progress=self.progress,
        )
