r"""Denoisers: estimates of E[x | x_t] for x_t = x + sigma n (EDM convention, alpha = 1).

A trained denoiser is a network that corrects a Gaussian one,

    D(x_t; sigma) = W_sigma(x_t) + c_out(sigma) F([c_in x_t, W_sigma(x_t), static]; ln(sigma)/4, condition),

with W_sigma the exact or Wiener denoiser of a Gaussian and c_out its rms error, so that F has a target of unit variance
at every noise level. With N(0, sigma_data² I) as the Gaussian this is EDM preconditioning to the letter:
W = c_skip x_t, c_out = sigma sigma_data / sqrt(sigma² + sigma_data²).

References:
    Karras et al. 2022, Elucidating the design space of diffusion-based generative models, Table 1.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Denoiser(Protocol):
    """E[x | x_t]; ``x_t`` (batch, channel, lat, lon), ``sigma`` () or (batch,), ``condition`` (batch, k) or None."""

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor: ...


class GaussianBase(Protocol):
    """A Gaussian denoiser that also knows its own error."""

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor: ...

    def error_std(self, sigma: Tensor) -> Tensor:
        """Root mean square denoising error, ``sigma`` (batch,) to (batch, channel or 1, 1, 1)."""
        ...


def per_sample(sigma: Tensor, x: Tensor) -> Tensor:
    """``sigma`` () or (batch,) shaped to broadcast over ``x`` (batch, ...)."""
    return sigma.reshape(-1, *([1] * (x.ndim - 1)))


class IsotropicGaussian(nn.Module):
    """The exact denoiser of N(0, sigma_data² I): the base that makes EDM."""

    def __init__(self, sigma_data: float = 1.0) -> None:
        super().__init__()
        self.sigma_data = sigma_data

    def forward(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return x_t * per_sample(self.sigma_data**2 / (sigma**2 + self.sigma_data**2), x_t)

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        """cov(x | x_t) @ v for ``v`` (batch, channel, lat, lon) and ``sigma`` () or (batch,)."""
        return v * per_sample((sigma * self.sigma_data) ** 2 / (sigma**2 + self.sigma_data**2), v).to(v)

    def error_std(self, sigma: Tensor) -> Tensor:
        return (sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()).reshape(-1, 1, 1, 1)


class PreconditionedDenoiser(nn.Module):
    """A network correcting a Gaussian base.

    Args:
        network: ``(inputs (batch, in, lat, lon), c_noise (batch,), condition) -> (batch, channel, lat, lon)``.
        base: the Gaussian denoiser W.
        static: maps given to the network with every sample, shape (static, lat, lon), or None.
        sees_base: whether the network is given W(x_t) beside c_in x_t; False is EDM to the letter.
    """

    static: Tensor | None

    def __init__(
        self, network: nn.Module, base: nn.Module, static: Tensor | None = None, sees_base: bool = True
    ) -> None:
        super().__init__()
        self.network, self.base, self.sees_base = network, base, sees_base
        self.register_buffer("static", static)

    def forward(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        sigma = sigma.to(x_t).reshape(-1).expand(x_t.shape[0])
        wiener = self.base(x_t, sigma)
        inputs = [x_t / per_sample((sigma**2 + 1).sqrt(), x_t)]
        if self.sees_base:
            inputs.append(wiener)
        if self.static is not None:
            inputs.append(self.static.to(x_t).expand(x_t.shape[0], -1, -1, -1))
        correction = self.network(torch.cat(inputs, dim=1), sigma.log() / 4, condition)
        return wiener + self.base.error_std(sigma) * correction  # type: ignore[operator, no-any-return]


class Conditioned:
    """A denoiser with its condition filled in: what guidance and samplers call.

    Args:
        denoiser: any denoiser.
        condition: shape (k,) or (1, k), the same for every member.
    """

    def __init__(self, denoiser: Denoiser, condition: Tensor | None) -> None:
        self._denoiser = denoiser
        self._condition = None if condition is None else condition.reshape(1, -1)

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is None and self._condition is not None:
            condition = self._condition.to(x_t).expand(x_t.shape[0], -1)
        return self._denoiser(x_t, sigma, condition)
