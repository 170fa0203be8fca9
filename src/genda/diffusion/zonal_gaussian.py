r"""A Gaussian that is homogeneous along circles of latitude, by its leading modes: the base of priors of background errors.

With F the unitary discrete Fourier transform along each circle, every zonal wavenumber m has a covariance S_m of all channels and
latitudes. Of all eigenvectors u_k of all S_m the K with most variance are kept; what they leave is taken as white,

    C = F* [Σ_k λ_k u_k u_k* + ρ (1 - Σ_k u_k u_k*)] F,

so that every function of C is exact: denoiser, conditional covariance and draws cost two thin matrix products.

The isotropic sibling (:class:`genda.diffusion.gaussian.SphericalGaussian`) can't know that wind follows pressure by geostrophy,
whose sign and size depend on latitude and direction; this one does, and a few thousand modes hold nearly all the variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from genda.diffusion.noise import MemberNoise
from genda.linalg import weighted_gram


class ZonalGaussian(nn.Module):
    """N(0, C) on fields (channel, lat, lon).

    Args:
        modes: u_k, real and imaginary part, shape (K, channel, lat, 2); those of one wavenumber are orthonormal.
        variance: λ_k, shape (K,).
        wavenumber: m of each mode, in rising order, shape (K,).
        rest: ρ, shape ().
        nlon: points of a circle.
    """

    modes: Tensor
    variance: Tensor
    wavenumber: Tensor
    rest: Tensor

    def __init__(self, modes: Tensor, variance: Tensor, wavenumber: Tensor, rest: Tensor, nlon: int) -> None:
        super().__init__()
        self.nlon = nlon
        for name, value in (("modes", modes), ("variance", variance), ("wavenumber", wavenumber), ("rest", rest)):
            self.register_buffer(name, value)

    @staticmethod
    def truncated(spectra: Sequence[Tensor], shape: tuple[int, int, int], modes: int) -> ZonalGaussian:
        """The leading modes of S_m, each complex of shape (channel · lat, channel · lat), for m = 0 to nlon // 2."""
        channels, nlat, nlon = shape
        solved = [torch.linalg.eigh(s) for s in spectra]
        counts = _multiplicity(torch.arange(len(solved)), nlon)
        values = torch.stack([v for v, _ in solved]).real.clamp(min=0).double()
        total = (counts.unsqueeze(1) * values).sum()
        ranked = (counts.unsqueeze(1) * values).flatten().argsort(descending=True)[:modes].sort().values
        wavenumber, index = ranked // values.shape[1], ranked % values.shape[1]
        vectors = torch.stack([solved[int(m)][1][:, int(i)] for m, i in zip(wavenumber, index, strict=True)])
        kept, taken = values[wavenumber, index], counts[wavenumber]
        left = channels * nlat * nlon - taken.sum()
        rest = (total - (taken * kept).sum()) / left.clamp(min=1)
        u = torch.view_as_real(vectors.to(torch.complex64)).view(-1, channels, nlat, 2)
        return ZonalGaussian(u, kept.float(), wavenumber, rest.float(), nlon)

    def scaled(self, factor: float) -> ZonalGaussian:
        """N(0, factor · C)."""
        return ZonalGaussian(self.modes, factor * self.variance, self.wavenumber, factor * self.rest, self.nlon)

    @property
    def multiplicity(self) -> Tensor:
        """How many real coordinates each mode stands for, (K,)."""
        return _multiplicity(self.wavenumber, self.nlon)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a field, (channel, lat, lon)."""
        return self.modes.shape[1], self.modes.shape[2], self.nlon

    def forward(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        noise = sigma.to(x_t) ** 2
        return self.filtered(x_t, lambda c: c / (c + _column(noise)))

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        """cov(x | x_t) @ v for ``v`` (batch, channel, lat, lon) and ``sigma`` () or (batch,)."""
        noise = sigma.to(v) ** 2
        return self.filtered(v, lambda c: c * _column(noise) / (c + _column(noise)))

    def local_covariance(self, sigma: Tensor) -> Tensor:
        """cov(x | x_t) between the channels of one point, the same along a circle of latitude; () to (lat, channel, channel)."""
        rest, gains = self.gains(lambda c: 1 / (1 / c + 1 / sigma.to(c) ** 2), self.modes)
        share = (self.multiplicity / self.nlon).repeat_interleave(2)
        u = self.modes.permute(2, 1, 0, 3).flatten(2)  # (lat, channel, real and imaginary parts)
        local: Tensor = (u * (share * gains)) @ u.mT + rest * torch.eye(u.shape[1]).to(u)
        return local

    def between(self, function: Callable[[Tensor], Tensor], coordinates: Tensor, products: Tensor) -> Tensor:
        """E f(C) Eᵀ for k fields E, shape (k, k), by their :meth:`coordinates` E V and their dot products E Eᵀ."""
        rest, gains = self.gains(function, coordinates)
        return weighted_gram(coordinates, gains).add_(rest * products)

    def coordinates(self, x: Tensor) -> Tensor:
        """Vᵀ x for fields (batch, channel, lat, lon), shape (batch, 2K).

        Of a wave that is its own conjugate the second part is superfluous, but zero, or a turn of phase that products of
        coordinates don't see.
        """
        waves, u = self._waves(x), self._complex_modes(x)
        parts = torch.cat([waves[m] @ u[group].mH for m, group in self._groups()], dim=1)
        count = self.multiplicity.to(x).sqrt()
        return torch.view_as_real(parts * count).flatten(1)

    def gains(self, function: Callable[[Tensor], Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
        """f(ρ), shape (), and f(λ) - f(ρ) for each of the :meth:`coordinates`, shape (2K,)."""
        rest = function(self.rest.to(like))
        return rest, (function(self.variance.to(like)) - rest).repeat_interleave(2)

    def prior_covariance(self, v: Tensor) -> Tensor:
        """C @ v."""
        return self.filtered(v, lambda c: c)

    def sample(self, noise: MemberNoise) -> Tensor:
        """Draws of N(0, C), one for each member of the noise, (members, channel, lat, lon)."""
        return self.filtered(noise.normal(self.shape, self.variance), torch.sqrt)

    def error_std(self, sigma: Tensor) -> Tensor:
        """Root mean square denoising error by channel and latitude, (batch,) to (batch, channel, lat, 1)."""
        noise = _column(sigma.to(self.variance) ** 2)
        posterior, rest = (c * noise / (c + noise) for c in (self.variance.view(1, -1), self.rest.view(1, 1)))
        share = self.multiplicity / self.nlon
        power = self.modes.square().sum(dim=-1).flatten(1)  # (K, channel · lat)
        variance = rest + ((posterior - rest) * share) @ power
        return variance.clamp(min=0).sqrt().view(-1, *self.modes.shape[1:3], 1)

    def filtered(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """f(C) x for fields (batch, channel, lat, lon); ``function`` of variances (..., k) may differ between samples."""
        return self.weighted(x, function(self.variance.view(1, -1).to(x)), function(self.rest.view(1, 1).to(x)))

    def weighted(self, x: Tensor, gains: Tensor, rest: Tensor) -> Tensor:
        """[Σ_k g_k u_k u_k* + r (1 - Σ_k u_k u_k*)] x, with g_k (K,) or (batch, K), and r alike in one column."""
        waves, u = self._waves(x), self._complex_modes(x)
        more = gains - rest
        filtered = [rest * w for w in waves]
        for m, group in self._groups():
            filtered[m] = filtered[m] + ((waves[m] @ u[group].mH) * more[..., group]) @ u[group]
        back = torch.stack(filtered).view(len(waves), len(x), *x.shape[1:3]).permute(1, 2, 3, 0)
        fields: Tensor = torch.fft.irfft(back, n=self.nlon, norm="ortho")
        return fields

    def _waves(self, x: Tensor) -> Tensor:
        """F x, half of it, shape (m, batch, channel · lat)."""
        waves: Tensor = torch.fft.rfft(x, norm="ortho")
        return waves.permute(3, 0, 1, 2).flatten(2)

    def _complex_modes(self, like: Tensor) -> Tensor:
        """u_k, shape (K, channel · lat)."""
        return torch.view_as_complex(self.modes.to(like).contiguous()).flatten(1)

    def _groups(self) -> Iterator[tuple[int, slice]]:
        """Each wavenumber that has modes, and which these are."""
        start = 0
        numbers, sizes = torch.unique_consecutive(self.wavenumber, return_counts=True)
        for m, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
            yield m, slice(start, start + size)
            start += size


def _column(noise: Tensor) -> Tensor:
    return noise.reshape(-1, 1)


def _multiplicity(wavenumber: Tensor, nlon: int) -> Tensor:
    """How many real waves a complex coefficient stands for: one for m = 0 and the shortest wave, otherwise two."""
    return 2 - ((wavenumber == 0) | (2 * wavenumber == nlon)).long()
