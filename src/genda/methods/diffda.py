r"""DiffDA: diffusion given the background, with observed values painted in on a walk back and forth.

An increment prior without a latent (its autoencoder is the identity) sampled with RePaint's mask and walk: no observation
errors, no operators beyond grid values, as in the paper.

Reference: Huang et al. 2024, arXiv 2401.05932 (DiffDA): 10 × 10 jumps, mask of 1.5 cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genda.diffusion.increments import IncrementPrior
from genda.diffusion.sampler import Sampler
from genda.guidance.repaint import RePaint, painted
from genda.methods.latent_gaussian import about_background
from genda.problem import Problem


@dataclass(frozen=True)
class DiffDA:
    """The method.

    Attributes:
        prior: of increments of the fields themselves.
        distance: between grid points, shape (lat · lon, lat · lon).
        width: of the mask's kernel, in the units of ``distance``.
        sampler: the walk.
        batch: members at a time, None for all; bounds memory and changes nothing else.
        device: where to sample.
        progress: called after every sampling step of every batch.
    """

    prior: IncrementPrior
    distance: Tensor
    width: float
    sampler: Sampler = field(default_factory=lambda: Sampler(steps=30, jump=5, repeats=5, fresh=0.0))
    batch: int | None = None
    device: torch.device | str = "cpu"
    progress: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise ValueError(f"diffda: found a mask {self.width:g} wide, expected a positive width")

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        about = about_background(self.prior, problem, None, self.device)
        known, mask = painted(problem, about.background, self.distance, self.width)
        increments = about.encode((about.background + known).unsqueeze(0))[0]
        seed = int(torch.randint(2**62, (), generator=generator))
        guided = RePaint(about, increments, mask)
        e = self.sampler.sample(
            guided, about.shape, members, seed, batch=self.batch, device=self.device, progress=self.progress
        )
        return about.decode(e)
