r"""Optimal interpolation: the exact posterior mean of a Gaussian prior.

    x_a = C Hᵀ (H C Hᵀ + R)^{-1} y

in normalised anomalies, C the climatological covariance of :class:`genda.diffusion.gaussian.SphericalGaussian`, solved by
conjugate gradients in observation space.

Reference: Daley 1991, Atmospheric Data Analysis, chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.diffusion.gaussian import SphericalGaussian
from genda.guidance.gaussian import kalman_increment
from genda.problem import Problem


@dataclass(frozen=True)
class OptimalInterpolation:
    """The method; deterministic. A nonlinear operator is linearised at the climatology.

    Attributes:
        prior: the climatological Gaussian.
        iterations: of conjugate gradients, at most.
        tolerance: relative residual at which they stop.
    """

    prior: SphericalGaussian
    iterations: int = 500
    tolerance: float = 1e-4

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        if not problem.sources:
            return torch.zeros(1, *problem.shape)
        source = problem.stacked
        mean = source.values.new_zeros(1, *problem.shape)
        return kalman_increment(
            self.prior.prior_covariance, source, mean, source.misfit(mean), self.iterations, self.tolerance
        )
