r"""What a background alone tells of its error, if backgrounds vary as truths do: it is to be damped.

In each mode k of a Gaussian of errors, with λ_k their variance and v_k that of backgrounds b about their own mean,

    var(b_k + e_k) = var(b_k)   ⟹   cov(e_k, b_k) = -λ_k / 2,      E[e_k | b_k] = -d_k b_k,   d_k = λ_k / (2 v_k)

A forecast that is as lively as the truth is livelier than the best guess, by half the share of its variance that is error.
Nothing is fitted but the variance of backgrounds. It says nothing of a mean of members, which is damped already. What is left
of the error has the variance λ_k (1 - d_k / 2); where shares are a few per cent the Gaussian may stay as it is.

Reference: Leith 1974, Mon. Wea. Rev. 102, 409 (the optimal filter of a forecast).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from genda.diffusion.zonal_gaussian import ZonalGaussian


def damping_shares(base: ZonalGaussian, backgrounds: Iterable[Tensor]) -> Tensor:
    """d_k of every mode and of what lies outside them, from 0 to 1, shape (modes + 1,).

    Args:
        base: Gaussian of errors.
        backgrounds: about their mean and in the errors' units, in parts of shape (sample, channel, lat, lon).
    """
    power, total, samples, size = torch.zeros(2 * len(base.variance)), torch.zeros(()), 0, 0
    for part in backgrounds:
        power += base.coordinates(part).square().sum(dim=0)
        total += part.square().sum()
        samples, size = samples + len(part), part[0].numel()
    power, count = power.view(-1, 2).sum(dim=1) / samples, base.multiplicity
    outside = (total / samples - power.sum()) / max(size - int(count.sum()), 1)
    variance = torch.cat([power / count, outside.view(1)])
    errors = torch.cat([base.variance, base.rest.view(1)])
    return (errors / (2 * variance)).nan_to_num(0.0).clamp(0.0, 1.0)


def expected_errors(base: ZonalGaussian, backgrounds: Tensor, shares: Tensor) -> Tensor:
    """E[e_k | b_k] of every mode together, shape (batch, channel, lat, lon).

    Args:
        base, backgrounds: as of :func:`damping_shares`, (batch, channel, lat, lon).
        shares: (modes + 1,), or of each background, (batch, modes + 1).
    """
    return base.weighted(backgrounds, -shares[..., :-1], -shares[..., -1:])
