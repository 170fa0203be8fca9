r"""3D-Var in a latent space: the mode of p(x | x_b, y) with a diagonal background covariance of latents.

    J(e) = ½ ‖e‖² + ½ ‖y - H(x_b + decode(e))‖²_R,        x = x_b + decode(e)

Increments e are latent differences in units of their own standard deviation, found from training backgrounds, so that their
covariance is taken as the identity; what relates variables and neighbours is the decoder's.

Reference: Fan et al. 2025, arXiv 2502.02884 (L3DVar), which minimises by Adam what is Gauss–Newton here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.diffusion.increments import IncrementPrior
from genda.methods.latent_gaussian import about_background
from genda.methods.variational import Variational
from genda.problem import Problem


@dataclass(frozen=True)
class LatentVariational:
    """The method; deterministic.

    Attributes:
        prior: its autoencoder and scales are used, the denoiser is not.
        outer, inner, tolerance: of :class:`genda.methods.variational.Variational`.
        device: where to minimise.
    """

    prior: IncrementPrior
    outer: int = 3
    inner: int = 50
    tolerance: float = 1e-4
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        about = about_background(self.prior, problem, None, self.device)
        latent = about.observed(problem)
        start = torch.zeros(about.shape).to(about.latent)
        root = _White(about.shape)
        variational = Variational(root, self.outer, self.inner, self.tolerance)
        e = variational.analyse(Problem(about.shape, latent.sources, background=start), 1, generator)
        return about.decode(e)


@dataclass(frozen=True)
class _White:
    """The identity as a root."""

    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        channels, lat, lon = self.shape
        return channels * lat * lon

    def apply(self, v: Tensor) -> Tensor:
        return v.view(-1, *self.shape)

    def transpose(self, x: Tensor) -> Tensor:
        return x.flatten(1)
