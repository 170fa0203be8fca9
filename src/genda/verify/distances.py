r"""Distances between two distributions, each known by a sample: how far an ensemble is from a posterior known otherwise.

    energy distance    2 E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖
    sliced W1          mean over unit vectors u of the Wasserstein-1 distance between uᵀX and uᵀY

Both are zero where the distributions are the same and see more than means and variances. The energy distance is estimated without
bias (pairs of a member with itself do not count), so that it may come out slightly negative and does not favour larger samples;
a Wasserstein distance between samples has no such estimate, and means something only beside that between two samples of one
distribution, of the same sizes.

References:
    Székely and Rizzo 2013, J. Stat. Plan. Inference 143, 1249; Bonneel et al. 2015, J. Math. Imaging Vis. 51, 22.
"""

from __future__ import annotations

import torch
from torch import Tensor


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate from independent members ``x`` (n, d) and ``y`` (m, d), in their units.

    Raises:
        ValueError: for fewer than two members or vectors of different lengths.
    """
    _check(x, y)
    return float(2 * _distances(x, y).mean() - _mean_within(x) - _mean_within(y))


def sliced_wasserstein(x: Tensor, y: Tensor, generator: torch.Generator, directions: int = 128) -> float:
    """Mean Wasserstein-1 distance of projections of ``x`` (n, d) and ``y`` (m, d) on random unit vectors, in their units.

    Raises:
        ValueError: for fewer than two members or vectors of different lengths.
    """
    _check(x, y)
    u = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    u = u / u.norm(dim=0)
    ordered = [(sample.double() @ u).sort(dim=0).values for sample in (x, y)]
    # Both quantile functions are constant between consecutive levels of either.
    levels = torch.cat([torch.arange(n + 1, dtype=torch.float64) / n for n in (len(x), len(y))]).unique()  # type: ignore[no-untyped-call]
    middles, widths = (levels[1:] + levels[:-1]) / 2, levels.diff()
    quantiles = [values[(middles * len(values)).long()] for values in ordered]
    return float((widths.unsqueeze(1) * (quantiles[0] - quantiles[1]).abs()).sum(dim=0).mean())


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"samples: found shapes {tuple(x.shape)} and {tuple(y.shape)}, expected two members or more of one length"
        )


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # Exact differences: the faster matrix product cancels where members are close.
    result: Tensor = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return result


def _mean_within(x: Tensor) -> Tensor:
    return _distances(x, x).sum() / (len(x) * (len(x) - 1))
