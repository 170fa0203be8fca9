r"""Hersbach's decomposition of the CRPS: how much of it is bad calibration, how much would remain were that mended.

With N ordered members x_1 ≤ … ≤ x_N and bins 0 … N between them, α_i is the part of bin i below the truth y and β_i the part
above it (in the outermost bins only the stretch between y and the ensemble). The CRPS of the step function that rises by 1/N at
each member is

    ∫ (F(x) - 1{x ≥ y})² dx = Σ_i α_i p_i² + β_i (1 - p_i)²,       p_i = i/N.

Averaged over points and dates, ᾱ_i and β̄_i give the mean width g_i = ᾱ_i + β̄_i of a bin and how often the truth was below
it, o_i = β̄_i / g_i; in the outermost, o_0 is the frequency of truths below all members, 1 - o_N that of truths above all,
g_0 = β̄_0 / o_0 and g_N = ᾱ_N / (1 - o_N). Then exactly

    CRPS = Reli + CRPS_pot,       Reli = Σ g_i (o_i - p_i)²,       CRPS_pot = Σ g_i o_i (1 - o_i).

Reli is 0 where frequencies are as forecast; CRPS_pot is what a recalibrated ensemble would score, and subtracted from the CRPS of
the climatology it is the resolution. Points of one channel are pooled: misfits of opposite sign in two regions cancel in Reli. The
CRPS here is that of the N members as they are; the fair one is smaller by the mean |x_i - x_j| / 2N of two different members.

References:
    Hersbach 2000, Weather and Forecasting 15, 559, eqs. 22-36.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genda.verify.ensemble import check_members
from genda.verify.scores import Array, area_mean


def crps_bins(members: Tensor, truth: Tensor, weights: Tensor | Array) -> tuple[Tensor, Tensor]:
    """Area means of α_i and β_i.

    Args:
        members: shape (..., member, channel, lat, lon), at least two members.
        truth: shape (..., channel, lat, lon).
        weights: shape (lat,) or (lat, lon).

    Returns:
        two tensors of shape (..., channel, member + 1), units of the field.
    """
    count = check_members(members, truth)
    x, y = members.double().sort(dim=-4).values, truth.double().unsqueeze(-4)
    lower, upper = x.narrow(-4, 0, count - 1), x.narrow(-4, 1, count - 1)
    inside = torch.minimum(torch.maximum(y, lower), upper)
    beyond, before = (y - x.narrow(-4, count - 1, 1)).clamp(min=0), (x.narrow(-4, 0, 1) - y).clamp(min=0)
    nothing = torch.zeros_like(before)
    alpha = torch.cat([nothing, inside - lower, beyond], dim=-4)
    beta = torch.cat([before, upper - inside, nothing], dim=-4)
    return area_mean(alpha, weights).mT, area_mean(beta, weights).mT


def crps_parts(alpha: Array, beta: Array, ranks: Array) -> tuple[Array, Array]:
    """Reliability and potential CRPS of mean bins, each of shape (...), whose sum is the mean CRPS.

    Args:
        alpha, beta: means of :func:`crps_bins`, shape (..., member + 1).
        ranks: mean rank histogram, shape (..., member + 1), for the frequencies o_0 and 1 - o_N.
    """
    share = np.arange(alpha.shape[-1]) / (alpha.shape[-1] - 1)
    width = alpha + beta
    below = _divide(beta, width)
    below[..., 0], below[..., -1] = ranks[..., 0], 1 - ranks[..., -1]
    width[..., 0] = _divide(beta[..., 0], ranks[..., 0])
    width[..., -1] = _divide(alpha[..., -1], ranks[..., -1])
    reliability = (width * (below - share) ** 2).sum(axis=-1)
    potential = (width * below * (1 - below)).sum(axis=-1)
    return reliability, potential


def _divide(numerator: Array, denominator: Array) -> Array:
    """0 for 0/0: an empty bin has no part in either sum."""
    return np.divide(numerator, denominator, out=numerator * 0.0, where=denominator != 0)
