r"""What a guidance is: a prior denoiser and the increment by which a likelihood moves it.

With s_l = ∇ log p(y | x_t) the likelihood score, Tweedie's formula gives the posterior denoiser

    D_post(x_t) = D(x_t) + sigma² s_l

Samplers need the two terms apart, for a second-order step may keep the score of its first half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from genda.diffusion.denoiser import Denoiser


class Guided(ABC):
    """A posterior denoiser."""

    prior: Denoiser

    @abstractmethod
    def terms(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """D(x_t) and sigma² s_l, each of the shape of ``x_t`` (batch, channel, lat, lon)."""

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        estimate, increment = self.terms(x_t, sigma, condition)
        return estimate + increment
