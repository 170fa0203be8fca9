r"""Gaussian priors as denoisers: the test oracle, the untrained fallback and the base that a network corrects.

For x ~ N(m, C) and x_t = x + sigma n,

    D(x_t) = m + C (C + sigma² I)^{-1} (x_t - m),        cov(x | x_t) = C - C (C + sigma² I)^{-1} C.

:class:`DenseGaussian` is exact for any covariance that fits in memory. :class:`SphericalGaussian` is homogeneous on the
sphere: a channel covariance C_l for every spherical-harmonic degree l, and what lies outside the truncation (78 % of white
grid noise at 48×96 and T31, below 1 % of the signal) as an uncorrelated remainder by channel and latitude. Its Wiener filter
takes grid noise for homogeneous noise of the same mean power; its error, noise mismatch included, is measured when it is fitted.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from genda.diffusion.denoiser import per_sample
from genda.diffusion.noise import MemberNoise
from genda.grid import LatLonGrid
from genda.sphere import SphericalTransform

ERROR_SIGMAS = torch.logspace(-3, 3, 31)
"""Noise levels at which a fitted spherical Gaussian measures its own error; log-linear interpolation between."""


class GaussianDenoiser(Protocol):
    """A denoiser that gives the covariance of x given x_t as a product with fields."""

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor: ...

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        """cov(x | x_t) @ v for ``v`` (batch, channel, lat, lon) and ``sigma`` () or (batch,)."""
        ...


def own_covariance(prior: object, otherwise: GaussianDenoiser | None) -> GaussianDenoiser | None:
    """The conditional covariance that a prior knows of itself, or another's."""
    return prior if hasattr(prior, "conditional_covariance") else otherwise  # type: ignore[return-value]


class DenseGaussian(nn.Module):
    """The exact denoiser of N(mean, covariance).

    Args:
        mean: shape (channel, lat, lon).
        covariance: symmetric, shape (n, n) with n = channel * lat * lon.
    """

    mean: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        self.register_buffer("mean", mean)
        self.register_buffer("eigenvalues", eigenvalues.clamp(min=0))
        self.register_buffer("eigenvectors", eigenvectors)

    def forward(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        variance = self._column(sigma) ** 2
        return self.mean + self._filter(x_t - self.mean, self.eigenvalues / (self.eigenvalues + variance))

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        variance = self._column(sigma) ** 2
        return self._filter(v, self.eigenvalues * variance / (self.eigenvalues + variance))

    def error_std(self, sigma: Tensor) -> Tensor:
        """Root mean square denoising error of each channel, (batch,) to (batch, channel, 1, 1)."""
        variance = self._column(sigma) ** 2
        posterior = self.eigenvalues * variance / (self.eigenvalues + variance)
        return (posterior @ self.eigenvectors.T**2).view(-1, *self.mean.shape).mean(dim=(2, 3), keepdim=True).sqrt()

    def _column(self, sigma: Tensor) -> Tensor:
        return sigma.to(self.eigenvalues).reshape(-1, 1)

    def _filter(self, x: Tensor, gains: Tensor) -> Tensor:
        return (((x.flatten(1) @ self.eigenvectors) * gains) @ self.eigenvectors.T).view(x.shape)


class SphericalGaussian(nn.Module):
    """A homogeneous Gaussian on the sphere with cross-channel covariance per degree.

    Args:
        grid: the grid.
        covariance: C_l, variance of one coefficient, shape (lmax, channel, channel).
        remainder: variance outside the truncation, shape (channel, lat).
        error: rms denoising error at :data:`ERROR_SIGMAS`, shape (31, channel).
    """

    covariance: Tensor
    remainder: Tensor
    error: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    remainder_noise: Tensor

    def __init__(self, grid: LatLonGrid, covariance: Tensor, remainder: Tensor, error: Tensor) -> None:
        super().__init__()
        self.transform = SphericalTransform(grid, covariance.shape[0])
        self.register_buffer("covariance", covariance)
        self.register_buffer("remainder", remainder)
        self.register_buffer("error", error)
        self.register_buffer("remainder_noise", _remainder_noise(self.transform), persistent=False)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance.double())
        self.register_buffer("eigenvalues", eigenvalues.clamp(min=0).float(), persistent=False)
        self.register_buffer("eigenvectors", eigenvectors.float(), persistent=False)

    @staticmethod
    def fit(values: Tensor, grid: LatLonGrid, seed: int = 0, batch: int = 64) -> SphericalGaussian:
        """Fit to normalised anomalies of mean zero, shape (sample, channel, lat, lon); a second for 1,000 samples.

        The seed draws the noise with which the fitted denoiser's own error is measured on 64 of the samples.
        """
        covariance, remainder = homogeneous_covariance(values, grid, batch)
        channels = values.shape[1]
        unmeasured = torch.ones(len(ERROR_SIGMAS), channels)
        fitted = SphericalGaussian(grid, covariance, remainder, unmeasured)
        subset = values[:: max(1, len(values) // 64)][:64].float()
        fitted.error.copy_(fitted._measured_error(subset, torch.Generator().manual_seed(seed)))
        return fitted

    def forward(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        noise = per_sample(sigma.to(x_t), x_t) ** 2
        power = noise.view(-1, 1) * self.transform.white_noise_power
        a = self.transform.waves(x_t)
        rest = x_t - self.transform.fields(a)
        filtered = self._mix(a, lambda c: c / (c + power))
        remainder = self.remainder.unsqueeze(-1)
        gain = remainder / (remainder + noise * self.remainder_noise).clamp(min=1e-12)
        return torch.addcmul(self.transform.fields(filtered), gain, rest)

    def error_std(self, sigma: Tensor) -> Tensor:
        """Measured rms denoising error, (batch,) to (batch, channel, 1, 1)."""
        position = (sigma.to(self.error).clamp(1e-3, 1e3).log10() + 3) * 5
        below = position.floor().long().clamp(max=len(ERROR_SIGMAS) - 2)
        part = (position - below).unsqueeze(-1)
        table = self.error.log()
        return ((1 - part) * table[below] + part * table[below + 1]).exp()[..., None, None]

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        noise = per_sample(sigma.to(v), v) ** 2
        power = noise.view(-1, 1) * self.transform.white_noise_power
        smooth = self._mix(self.transform.projections(v), lambda c: c * power / (c + power))
        remainder = self.remainder.unsqueeze(-1)
        rough = noise * self.remainder_noise
        gain = remainder * rough / (remainder + rough).clamp(min=1e-12)
        return torch.addcmul(self.transform.fields(smooth), gain, v)

    def prior_covariance(self, v: Tensor) -> Tensor:
        """C @ v, the covariance of x itself."""
        smooth = self._mix(self.transform.projections(v), lambda c: c)
        return torch.addcmul(self.transform.fields(smooth), self.remainder.unsqueeze(-1), v)

    def sample(self, noise: MemberNoise) -> Tensor:
        """Draws of N(0, C), one for each member of the noise, (members, channel, lat, lon).

        White noise divided by the root of the quadrature weights has coefficients of unit variance on a Gaussian grid.
        """
        shape = (len(self.remainder), *self.transform.grid.shape)
        white = noise.normal(shape, self.remainder) / self.transform.quadrature.to(self.remainder).sqrt()
        smooth = self._mix(self.transform.waves(white), lambda c: c.sqrt())
        rough = noise.normal(shape, self.remainder)
        return torch.addcmul(self.transform.fields(smooth), self.remainder.unsqueeze(-1).sqrt(), rough)

    def _mix(self, waves: Tensor, gain: _Gain) -> Tensor:
        """Apply gain(C_l) to coefficients (m, l, 2, batch, channel) in each degree's own eigenvectors."""
        q = self.eigenvectors.to(waves)
        gains = gain(self.eigenvalues.to(waves).view(len(q), 1, 1, -1))  # (l, 1, 1 or batch, channel)
        eigen = (waves.flatten(2, 3) @ q).view(waves.shape) * gains
        return (eigen.flatten(2, 3) @ q.mT).view(waves.shape)

    def _measured_error(self, values: Tensor, generator: torch.Generator) -> Tensor:
        weights = torch.as_tensor(self.transform.grid.area_weights).float().view(-1, 1)
        rows = []
        for sigma in ERROR_SIGMAS:
            noise = torch.randn(values.shape, generator=generator)
            error = self(values + sigma * noise, sigma) - values
            rows.append((weights * error**2).mean(dim=(0, 2, 3)).sqrt())
        return torch.stack(rows)

    @property
    def degree_variance(self) -> Tensor:
        """Variance of each channel by degree, shape (lmax, channel)."""
        per_degree = 2 * torch.arange(len(self.covariance)).to(self.covariance) + 1
        return self.covariance.diagonal(dim1=1, dim2=2) * per_degree.view(-1, 1) / (4 * torch.pi)


def homogeneous_covariance(values: Tensor, grid: LatLonGrid, batch: int = 64) -> tuple[Tensor, Tensor]:
    """C_l and the variance outside the truncation of a sample of mean zero, (sample, channel, lat, lon).

    Returns:
        shapes (lmax, channel, channel) and (channel, lat).
    """
    transform = SphericalTransform(grid)
    channels, lmax = values.shape[1], transform.lmax
    covariance = torch.zeros(lmax, channels, channels, dtype=torch.float64)
    remainder = torch.zeros(channels, grid.shape[0], dtype=torch.float64)
    doubled = torch.full((lmax,), 2.0).index_fill(0, torch.tensor(0), 1.0)
    for block in torch.split(values, batch):
        x = block.float()
        a = transform.waves(x)
        covariance += torch.einsum("mlpbc,mlpbd,m->lcd", a, a, doubled).double()
        remainder += ((x - transform.fields(a)) ** 2).mean(dim=-1).sum(dim=0).double()
    covariance /= (len(values) * (2 * torch.arange(lmax) + 1)).view(-1, 1, 1)
    remainder /= len(values)
    return covariance.float(), remainder.float()


class _Gain(Protocol):
    def __call__(self, eigenvalues: Tensor) -> Tensor: ...


def _remainder_noise(transform: SphericalTransform) -> Tensor:
    """Power of unit white grid noise outside the truncation at each latitude, shape (lat, 1).

    With K the reproducing kernel of the truncation, white noise n leaves n - K ω n; its variance at i is
    1 - 2 ω_i K_ii + Σ_j K_ij² ω_j², and K_ij depends on longitude only through the difference.
    """
    nlat, nlon = transform.grid.shape
    delta = torch.zeros(nlat, nlat, nlon)
    delta[torch.arange(nlat), torch.arange(nlat), 0] = 1.0
    kernel = transform.synthesis(transform.analysis(delta))  # [i] = response everywhere to a unit value at row i
    own = kernel[torch.arange(nlat), torch.arange(nlat), 0]
    # The response at row j to a unit value at row i is K_ij ω_i; all columns of row i contribute alike.
    leaked = (kernel**2).sum(dim=-1)  # [i, j]
    return (1 - 2 * own + leaked.sum(dim=0)).unsqueeze(-1).float()
