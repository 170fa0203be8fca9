"""Ensemble statistics that do not depend on the number of members.

For N members x_i and a truth y at one point:

    fair CRPS   (1/N) Σ |x_i - y| - 1/(2N(N-1)) Σ_ij |x_i - x_j|       (Ferro 2014: unbiased for the N → ∞ CRPS)
    fair energy score   (1/N) Σ ‖x_i - y‖ - 1/(2N(N-1)) Σ_ij ‖x_i - x_j‖        (Gneiting and Raftery 2007: CRPS of whole fields)
    spread²     (N+1)/N · (1/(N-1)) Σ (x_i - mean)²                     (Fortin et al. 2014)

If truth and members are drawn from one distribution, E[(mean - y)²] = (N+1)/N · variance, so with that factor a
calibrated ensemble has  spread / skill = sqrt(mean spread² / mean squared error of the mean) = 1  for every N. Averages
come before the root: the ratio of averages, never the average of ratios.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genda.verify.scores import Array, area_mean, normalised_weights


def check_members(members: Tensor, truth: Tensor | None = None) -> int:
    """The number of members.

    Raises:
        ValueError: for fewer than two, or a truth of another shape.
    """
    if members.ndim < 4 or members.shape[-4] < 2:
        raise ValueError(f"members: found shape {tuple(members.shape)}, expected (..., member ≥ 2, channel, lat, lon)")
    if truth is not None and (*members.shape[:-4], *members.shape[-3:]) != tuple(truth.shape):
        raise ValueError(
            f"truth: found shape {tuple(truth.shape)}, expected members {tuple(members.shape)} less one dimension"
        )
    return members.shape[-4]


def fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    """Fair continuous ranked probability score at every point.

    Args:
        members: shape (..., member, channel, lat, lon), at least two members.
        truth: shape (..., channel, lat, lon).

    Returns:
        shape (..., channel, lat, lon), float64, units of the field.
    """
    n = check_members(members, truth)
    x, y = members.double(), truth.double().unsqueeze(-4)
    skill = (x - y).abs().mean(dim=-4)
    ordered = x.sort(dim=-4).values  # Σ_ij |x_i - x_j| = 2 Σ_i (2i - N - 1) x_(i)
    rank = torch.arange(1, n + 1, dtype=torch.float64, device=x.device).view(n, 1, 1, 1)
    return skill - ((2 * rank - n - 1) * ordered).sum(dim=-4) / (n * (n - 1))


def squared_spread(members: Tensor) -> Tensor:
    """(N+1)/N times the unbiased variance, shapes (..., member, channel, lat, lon) to (..., channel, lat, lon)."""
    n = check_members(members)
    return members.double().var(dim=-4, correction=1) * (n + 1) / n


def spread_skill_ratio(mean_squared_spread: Array, mean_squared_error: Array) -> Array:
    """sqrt(spread² / MSE) of averages over area and dates; 1 for a calibrated ensemble."""
    ratio: Array = (mean_squared_spread / mean_squared_error) ** 0.5
    return ratio


def rank_histogram(members: Tensor, truth: Tensor, weights: Tensor | Array) -> Tensor:
    """Area-weighted frequency of the truth's rank among the members, uniform 1/(N+1) if calibrated.

    A truth equal to k members is shared evenly between its k + 1 possible ranks.

    Args:
        members: shape (..., member, channel, lat, lon).
        truth: shape (..., channel, lat, lon).
        weights: shape (lat,) or (lat, lon).

    Returns:
        shape (..., channel, member + 1), summing to 1 over ranks.
    """
    n = check_members(members, truth)
    y = truth.unsqueeze(-4)
    below, equal = (members < y).sum(dim=-4), (members == y).sum(dim=-4)
    shared = 1.0 / (equal + 1).double()
    ranks = [area_mean(shared * ((below <= r) & (r <= below + equal)), weights) for r in range(n + 1)]
    return torch.stack(ranks, dim=-1)


def outlier_ratio(histogram: Array) -> Array:
    """Share of truths outside the ensemble over its expectation 2/(N+1): 1 if calibrated, above it over-confident.

    The outliers of Buizza and Palmer (1998, Mon. Wea. Rev. 126, 2503) sum up a rank histogram (Hamill 2001, Mon. Wea. Rev. 129,
    550) where a χ² of flatness cannot: neighbouring points of one map are no independent draws.

    Args:
        histogram: frequencies by rank, shape (..., member + 1).

    Returns:
        shape (...).
    """
    share: Array = (histogram[..., 0] + histogram[..., -1]) * (histogram.shape[-1] / 2)
    return share


def energy_score(members: Tensor, truth: Tensor, weights: Tensor | Array, std: Tensor | Array) -> Tensor:
    """Fair energy score of whole states, which sees whether points and channels go together.

    Args:
        members: shape (..., member, channel, lat, lon), at least two members.
        truth: shape (..., channel, lat, lon).
        weights: shape (lat,) or (lat, lon); the norm is the root of the area mean square.
        std: of each channel, shape (channel,), whose units the norm is in.

    Returns:
        shape (...), the mean over channels inside the norm.
    """
    n = check_members(members, truth)
    scale = torch.as_tensor(std, dtype=torch.float64, device=members.device).view(-1, 1, 1)
    share = normalised_weights(weights, members) / len(scale)
    departures = ((members - truth.unsqueeze(-4)).double() / scale * share.sqrt()).flatten(-3)
    skill = departures.norm(dim=-1).mean(dim=-1)
    # Exact differences: the faster matrix product cancels where members are close.
    pairs = torch.cdist(departures, departures, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=(-2, -1))
    score: Tensor = skill - pairs / (2 * n * (n - 1))
    return score
