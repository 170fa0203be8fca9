r"""Observations as maps on the grid of the state, for a network to see.

With innovations d = y - H x_b of a sparse H, how large the background's errors s = √diag(B) make them at most, σ_b = |H| s, the
part A = H diag(s) / σ_b that each grid point has in that, and the share w = σ_b² / (σ_b² + R) of an innovation that is the
background's error, a grid point is given the mean of the innovations that read it, in units of σ_b and weighted by how much and
how well,

    value = Aᵀ (w d / σ_b) / |A|ᵀ w,          density = min(1, |A|ᵀ w)

whatever the units of an observation.

A column at a grid point is thus itself, a station between grid points touches its neighbours, and the network is told how far to
believe either.
"""

from __future__ import annotations

import scipy.sparse as sp
import torch
from torch import Tensor

from genda.linalg import BlockDiagonal, Diagonal
from genda.observations.operators import tangent_matrix
from genda.problem import Problem, Source


def observed_maps(problem: Problem, background: Tensor, error_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Values and density, each (1, channel, lat, lon); both zero where nothing is observed.

    Args:
        problem: observations of states.
        background: x_b, shape (channel, lat, lon).
        error_variance: of backgrounds, diag(B), shape (channel,).

    Raises:
        ValueError: naming the source, for an operator that is no matrix or errors of unknown variance.
    """
    spread = error_variance.double().cpu().sqrt().view(-1, 1, 1).expand(background.shape).flatten().numpy()
    signal, weight = torch.zeros(2, background.numel(), dtype=torch.float64)
    for source in problem.sources:
        matrix = tangent_matrix(source.operator)
        if matrix is None:
            raise ValueError(
                f"{source.name}: found an operator that is no matrix, expected one: a network is shown values on the grid"
            )
        scaled = sp.csr_array(matrix * spread)
        size = abs(scaled).sum(axis=1)
        told = size > 0  # of what a background holds exactly there is nothing to tell
        part, variance = sp.csr_array(scaled[told] / size[told, None]), torch.as_tensor(size[told]) ** 2
        share = variance / (variance + _error_variance(source)[told].double().cpu() / source.weight)
        innovation = source.misfit(background.unsqueeze(0))[0, told].double().cpu()
        signal += torch.as_tensor(part.T @ (share * innovation / variance.sqrt()).numpy())
        weight += torch.as_tensor(abs(part).T @ share.numpy())
    values = torch.where(weight > 0, signal / weight.clamp(min=1e-12), 0.0)
    shape = (1, *background.shape)
    return values.to(background).view(shape), weight.clamp(max=1.0).to(background).view(shape)


def _error_variance(source: Source) -> Tensor:
    """Of each observation, (m,); a network is not told how errors go together."""
    if isinstance(source.covariance, Diagonal):
        return source.covariance.variance
    if isinstance(source.covariance, BlockDiagonal):
        return source.covariance.deviation**2
    found = f"found errors of {type(source.covariance).__name__}"
    raise ValueError(f"{source.name}: {found}, expected independent ones or blocks of correlated ones")
