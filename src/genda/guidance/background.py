r"""A background as part of the prior, p(x | x_b) ∝ p(x) N(x_b; x, B), its errors correlated in space and between variables.

With C_σ = cov(x | x_t) under the Gaussian that the prior's denoiser corrects, moment matching gives

    D_b(x_t) = D(x_t) + C_σ (C_σ + B)^{-1} (x_b - D(x_t)),        V_b = C_σ - C_σ (C_σ + B)^{-1} C_σ,

exact where the prior is that Gaussian. Both C and B are homogeneous on the sphere, so that every degree is one small matrix and
the cost is a spherical transform beside the network's. Whatever guidance adds observations takes D_b as its prior.

As observations of the whole state with independent errors, a background of 10⁵ numbers would drown all others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser
from genda.diffusion.gaussian import SphericalGaussian


class GivenBackground:
    """The denoiser of p(x | x_b).

    Args:
        prior: D.
        gaussian: N(0, C), which D corrects.
        errors: N(0, B), of the background.
        background: x_b, shape (channel, lat, lon), normalised anomalies.
    """

    def __init__(
        self, prior: Denoiser, gaussian: SphericalGaussian, errors: SphericalGaussian, background: Tensor
    ) -> None:
        self.prior, self._gaussian, self._errors, self._background = prior, gaussian, errors, background

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        estimate = self.prior(x_t, sigma, condition)
        c, r = self._conditional(sigma)
        return estimate + self._filtered(self._background - estimate, *self._gain(c, r))

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        """V_b v for fields (batch, channel, lat, lon)."""
        c, r = self._conditional(sigma)
        gain, remainder_gain = self._gain(c, r)
        transform = self._gaussian.transform
        smooth = _by_degree(transform.projections(v), c - gain @ c)
        return torch.addcmul(transform.fields(smooth), ((1 - remainder_gain) * r).unsqueeze(-1), v)

    def start(self) -> tuple[Tensor, SphericalGaussian]:
        """Mean and covariance of p(x | x_b) under the Gaussian: where a sampler starts."""
        c, r = self._gaussian.covariance, self._gaussian.remainder
        gain, remainder_gain = self._gain(c, r)
        covariance = c - gain @ c
        grid = self._gaussian.transform.grid
        posterior = SphericalGaussian(
            grid, (covariance + covariance.mT) / 2, (1 - remainder_gain) * r, self._gaussian.error
        )
        return self._filtered(self._background.unsqueeze(0), gain, remainder_gain)[0], posterior

    def _conditional(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """C_σ by degree, (lmax, channel, channel), and of the remainder, (channel, lat)."""
        level = sigma.flatten()[0]
        if bool((sigma != level).any()):
            raise ValueError("background: found several noise levels in a batch, expected one")
        noise = (level.to(self._gaussian.covariance)) ** 2
        q, values = self._gaussian.eigenvectors, self._gaussian.eigenvalues
        power = noise * self._gaussian.transform.white_noise_power
        c = (q * (values * power / (values + power)).unsqueeze(-2)) @ q.mT
        rough = (noise * self._gaussian.remainder_noise).squeeze(-1)
        r = self._gaussian.remainder
        return c, r * rough / (r + rough).clamp(min=1e-12)

    def _gain(self, c: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """C (C + B)^{-1} by degree and of the remainder."""
        total = (c + self._errors.covariance).double()
        gain = torch.linalg.solve(total, c.double()).mT.to(c)
        return gain, r / (r + self._errors.remainder).clamp(min=1e-12)

    def _filtered(self, x: Tensor, gain: Tensor, remainder_gain: Tensor) -> Tensor:
        transform = self._gaussian.transform
        waves = transform.waves(x)
        rest = x - transform.fields(waves)
        return torch.addcmul(transform.fields(_by_degree(waves, gain)), remainder_gain.unsqueeze(-1), rest)


def _by_degree(waves: Tensor, matrix: Tensor) -> Tensor:
    """A matrix (lmax, channel, channel) times coefficients (m, l, 2, batch, channel)."""
    return (waves.flatten(2, 3) @ matrix.mT.to(waves)).view(waves.shape)
