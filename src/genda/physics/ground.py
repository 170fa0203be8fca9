"""Levels below the ground: NaN in many data sets, where the sphere's derivatives need a value at every point.

Missing values are replaced by relaxing towards a solution of Laplace's equation on their level. It meets the air around it without
a jump, so that spectral derivatives nearby ring little. What comes out is no weather: :func:`near_ground` tells where no
equation can be asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d, pad

_SWEEPS = 200
_REACH = 2
"""Points, in each direction along a level, at which a derivative still feels a replaced value strongly."""


def missing(x: Tensor, name: str) -> Tensor:
    """Where a field is below the ground.

    Args:
        x: levels from the ground up, shape (batch, level, lat, lon).
        name: what to call the field in an error.

    Returns:
        Boolean, shape of x.

    Raises:
        ValueError: for an infinite value, or one missing that has none missing below it or none present above it.
    """
    absent = ~torch.isfinite(x)
    if not bool(absent.any()):
        return absent
    aloft = (absent[:, 1:] & ~absent[:, :-1]).any() | absent[:, -1].any() | torch.isinf(x).any()
    if bool(aloft):
        raise ValueError(f"{name}: found values that are not finite, expected none but NaN below the ground")
    return absent


def filled(x: Tensor, absent: Tensor) -> Tensor:
    """Fields (..., lat, lon) with the absent values replaced; no gradient flows to or through these."""
    if not bool(absent.any()):
        return x
    with torch.no_grad():
        known = torch.where(absent, 0.0, x)
        count = (~absent).sum(dim=(-2, -1), keepdim=True).clamp(min=1)
        guess = torch.where(absent, known.sum(dim=(-2, -1), keepdim=True) / count, known)
        for _ in range(_SWEEPS):
            padded = torch.cat([guess[..., :1, :], guess, guess[..., -1:, :]], dim=-2)
            around = padded[..., :-2, :] + padded[..., 2:, :] + guess.roll(1, -1) + guess.roll(-1, -1)
            guess = torch.where(absent, around / 4, known)
    return torch.where(absent, guess, x)


def near_ground(absent: Tensor) -> Tensor:
    """Where a replaced value is in reach of a derivative: two points along a level, one across levels.

    Args:
        absent: shape (batch, level, lat, lon).
    """
    wide = pad(absent.float(), (_REACH, _REACH, 0, 0), mode="circular")
    width = 2 * _REACH + 1
    return max_pool3d(wide, (3, width, width), stride=1, padding=(1, _REACH, 0)) > 0
