r"""Sampling p(x | x_b, y) through latent increments, with any guidance: latent DPS, latent MMPS, and the frame of LO-SDA.

    e ~ p(e | x_b) N(y; H(x_b + decode(e)), R),        x = x_b + decode(e)

Observations see the decoder; what a latent can't hold of an error joins theirs. The guidances are those of pixel space, from SDA
with Γ = 0 (DPS) to MMPS; the derivatives they ask of the decoder are
those of its linear map, which are far cheaper than its own and enough.

References:
    Rombach et al. 2022, arXiv 2112.10752; Andry et al. 2025, arXiv 2504.18720 (Appa: MMPS through a decoder); Sun et al. 2025,
    arXiv 2505.22008 (Align-DA: latent DPS, conditioned on the background).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser
from genda.diffusion.hybrid_gaussian import EnsembleBase
from genda.diffusion.increments import IncrementPrior, Increments
from genda.diffusion.sampler import Sampler
from genda.methods.latent_gaussian import about_background, gaussian_analysis
from genda.problem import Problem

LatentGuidance = Callable[[Increments, Problem], Denoiser]
"""From the prior about a background and its observations as functions of the increment to a posterior denoiser."""


@dataclass(frozen=True)
class LatentSampling:
    """The method.

    Attributes:
        prior: of increments.
        guidance: such as ``MMPS`` or ``partial(SDA, gamma=0.0)``.
        sampler: settings of the walk through noise levels.
        ensemble: gives how the covariance of the problem's ensemble joins the prior's Gaussian, asked only where a problem has
            one, for its taper takes seconds; None leaves ensembles out.
        shown: let the network see the observations, for which it must have been trained; a guidance that takes them as well
            would count them twice.
        batch: members at a time, None for all; bounds memory and changes nothing else.
        device: where to sample.
        progress: called after every sampling step of every batch.
    """

    prior: IncrementPrior
    guidance: LatentGuidance
    sampler: Sampler = field(default_factory=Sampler)
    ensemble: Callable[[], EnsembleBase] | None = None
    shown: bool = False
    batch: int | None = None
    device: torch.device | str = "cpu"
    progress: Callable[[], None] | None = None

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        about = about_background(self.prior, problem, self.ensemble, self.device)
        if self.shown:
            about = self._shown(about, problem)
        latent = about.observed(problem, near=True)
        seed = int(torch.randint(2**62, (), generator=generator))
        e = self.sampler.sample(
            self.guidance(about, latent),
            about.shape,
            members,
            seed,
            batch=self.batch,
            device=self.device,
            progress=self.progress,
        )
        return about.decode(e)

    def _shown(self, about: Increments, problem: Problem) -> Increments:
        """With the network told the observations, and increments counted from what it was trained to correct."""
        shown = about.shown(problem)
        return shown.counted_from(gaussian_analysis(about, problem)) if self.prior.about_analysis else shown
