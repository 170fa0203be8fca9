r"""What a background alone tells of its error, if backgrounds have the climate of truths: it is to be damped.

In each mode k of a Gaussian of errors, with λ_k their variance and v_k that of backgrounds b about their climate,

    var(b_k + e_k) = var(b_k)   ⟹   cov(e_k, b_k) = -λ_k / 2,      E[e_k | b_k] = -d_k b_k,   d_k = λ_k / (2 v_k)

A forecast that is as lively as the truth is livelier than the best guess, by half the share of its variance that is error.
Nothing is fitted but the variance of backgrounds. It says nothing of a mean of members, which is damped already.

Reference: Leith 1974, Mon. Wea. Rev. 102, 409 (the optimal filter of a forecast).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.diffusion.zonal_gaussian import ZonalGaussian


@dataclass(frozen=True)
class Damping:
    """E[e | b] in a latent space.

    Attributes:
        base: Gaussian of increments.
        climate: the latent of the climatology, shape (1, channel, lat, lon).
        scale: of increments by lead, shape (lead, channel, 1, 1).
        shares: d_k of every mode and of what lies outside them, by lead, from 0 to 1, shape (lead, K + 1).
    """

    base: ZonalGaussian
    climate: Tensor
    scale: Tensor
    shares: Tensor

    @staticmethod
    def fit(base: ZonalGaussian, climate: Tensor, scale: Tensor, backgrounds: Tensor, lead: Tensor) -> Damping:
        """By latents of backgrounds, (sample, channel, lat, lon), and which lead each has, (sample,)."""
        shares = [_shares(base, (backgrounds[lead == i].float() - climate) / each) for i, each in enumerate(scale)]
        return Damping(base, climate, scale, torch.stack(shares))

    def __call__(self, backgrounds: Tensor, lead: Tensor) -> Tensor:
        """Increments expected of latents of backgrounds, (batch, channel, lat, lon), each of a lead, (batch,)."""
        anomalies = (backgrounds.float() - self.climate) / self.scale[lead]
        return self.base.weighted(anomalies, -self.shares[lead, :-1], -self.shares[lead, -1:])


def _shares(base: ZonalGaussian, anomalies: Tensor) -> Tensor:
    squares = torch.stack([base.coordinates(part).square().sum(dim=0) for part in torch.split(anomalies, 64)])
    power = squares.sum(dim=0).view(-1, 2).sum(dim=1) / len(anomalies)
    count, total = base.multiplicity, anomalies.square().sum() / len(anomalies)
    outside = (total - power.sum()) / max(anomalies[0].numel() - int(count.sum()), 1)
    backgrounds = torch.cat([power / count, outside.view(1)])
    errors = torch.cat([base.variance, base.rest.view(1)])
    return (errors / (2 * backgrounds)).nan_to_num(0.0).clamp(0.0, 1.0)
