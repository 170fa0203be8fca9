r"""Ensemble Kalman filters without localisation: perturbed observations (EnKF) and the ensemble transform (ETKF).

With A the deviations of N background members from their mean, Y = H(x_k) - mean of H, d = y - mean of H,

    EnKF:   x_k + A Yᵀ (Y Yᵀ + (N-1) R)^{-1} (y + ε_k - H(x_k))
    ETKF:   x̄ + A (w + T),      w = P Yᵀ R^{-1} d,   T = ((N-1) P)^{1/2},   P = (Yᵀ R^{-1} Y + (N-1) I)^{-1}

both in the space of the N members, so that the cost is linear in state and observations. Inflation multiplies the
deviations of the analysis; ``rotate`` mixes them by a random rotation that keeps their mean, which hinders the outliers that
a deterministic filter grows.

References:
    Burgers et al. 1998, Mon. Wea. Rev. 126, 1719; Bishop et al. 2001; Hunt et al. 2007, Physica D 230, 112;
    Sakov and Oke 2008, Mon. Wea. Rev. 136, 1042 (rotations).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.problem import Problem


@dataclass(frozen=True)
class EnKF:
    """The stochastic filter.

    Attributes:
        inflation: factor on the deviations of the analysis.
    """

    inflation: float = 1.0

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        background = problem.background_members(type(self).__name__)
        source, count = problem.stacked, len(background)
        deviations, images = background - background.mean(dim=0), source.operator(background)
        noise = source.covariance.scale(torch.randn(images.shape, generator=generator, dtype=images.dtype))
        noise = (noise - noise.mean(dim=0)) * (count / (count - 1)) ** 0.5  # a sample with the mean and variance of R
        spread = images - images.mean(dim=0)
        misfit = source.values.to(images) + noise - images
        # Yᵀ (Y Yᵀ + (N-1) R)^{-1} = (Yᵀ R^{-1} Y + (N-1) I)^{-1} Yᵀ R^{-1}: a solve in N dimensions.
        precision = spread @ source.covariance.inverse(spread).T + (count - 1) * torch.eye(count).to(images)
        weights = torch.linalg.solve(precision, spread @ source.covariance.inverse(misfit).T)
        analysis = background + torch.einsum("kj,kchw->jchw", weights, deviations)
        return inflate(analysis, self.inflation)


@dataclass(frozen=True)
class ETKF:
    """The deterministic filter with the symmetric root.

    Attributes:
        inflation: factor on the deviations of the analysis.
        rotate: mix them at random.
    """

    inflation: float = 1.0
    rotate: bool = False

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        background = problem.background_members(type(self).__name__)
        source, mean = problem.stacked, background.mean(dim=0)
        images = source.operator(background)
        spread = images - images.mean(dim=0)
        scaled = source.covariance.inverse(spread)
        weights = transform_weights(spread @ scaled.T, scaled @ (source.values.to(images) - images.mean(dim=0)))
        analysis = mean + torch.einsum("kj,kchw->jchw", weights, background - mean)
        if self.rotate:
            analysis = rotated(analysis, generator)
        return inflate(analysis, self.inflation)


def transform_weights(precision: Tensor, pull: Tensor) -> Tensor:
    """w + T for batches of N × N problems: column j gives analysis member j as a combination of the deviations.

    Args:
        precision: Yᵀ R^{-1} Y, shape (..., N, N).
        pull: Yᵀ R^{-1} d, shape (..., N).
    """
    count = precision.shape[-1]
    values, vectors = torch.linalg.eigh(precision)
    inverse = 1.0 / (values.clamp(min=0) + (count - 1))
    mean = vectors @ (inverse * (vectors.mT @ pull.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)
    weights: Tensor = mean + (vectors * ((count - 1) * inverse).sqrt().unsqueeze(-2)) @ vectors.mT
    return weights


def inflate(members: Tensor, factor: float) -> Tensor:
    """Deviations from the mean, times ``factor``."""
    mean = members.mean(dim=0)
    return members if factor == 1.0 else mean + factor * (members - mean)


def rotated(members: Tensor, generator: torch.Generator) -> Tensor:
    """Deviations mixed by a random orthogonal matrix that leaves their mean and covariance as they are."""
    count = len(members)
    dtype = members.dtype
    # A basis whose first vector is the mean, turned at random in all the others.
    basis, _ = torch.linalg.qr(
        torch.cat(
            [torch.ones(count, 1, dtype=dtype), torch.randn(count, count - 1, generator=generator, dtype=dtype)], dim=1
        )
    )
    turn, upper = torch.linalg.qr(torch.randn(count - 1, count - 1, generator=generator, dtype=dtype))
    turn = turn * upper.diagonal().sign()
    block = torch.eye(count, dtype=dtype)
    block[1:, 1:] = turn
    rotation = (basis @ block @ basis.T).to(members)
    mean = members.mean(dim=0)
    return mean + torch.einsum("jk,kchw->jchw", rotation, members - mean)
