"""Spectral divergence: how far the shape of one power spectrum is from another.

    SpecDiv = Σ_k S_k log(S_k / Ŝ_k),       S, Ŝ normalised to sum 1 over the wavenumbers kept; truth S, forecast Ŝ

Two forms, which answer different questions.

*ChaosBench's* (Nathaniel et al. 2024, ``SpectralDiv`` in validation mode; what PhyDA's tables show): the batch is
averaged first, then a plain 2-D FFT, radial bins from 0.5, the top 10 % of wavenumbers. Averaging smooths, and an FFT
on a latitude–longitude grid measures mostly the poles, so it is reported for comparison only.

*Per sample*: the spherical-harmonic spectrum of each field for degrees ≥ 13 (or of anomalies from degree 1), averaged
over dates last. Without such a limit the number is the mean equator-to-pole gradient and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.grid import LatLonGrid
from genda.sphere import triangular_limit
from genda.verify.spectra import spherical_power

_FLOOR = 1e-9  # ChaosBench's clamp on the ratio


def divergence_of_spectra(forecast: Tensor, truth: Tensor) -> Tensor:
    """Σ S log(S / Ŝ) of power spectra, shapes (..., wavenumber) to (...); zero for equal shapes of any amplitude."""
    s = truth.double() / truth.double().sum(dim=-1, keepdim=True)
    s_hat = forecast.double() / forecast.double().sum(dim=-1, keepdim=True)
    return (s * (s / s_hat).clamp(min=_FLOOR).log()).nansum(dim=-1)


def sample_spectral_divergence(
    forecast: Tensor, truth: Tensor, grid: LatLonGrid, min_degree: int = 13, max_degree: int | None = None
) -> Tensor:
    """SpecDiv of every single field over degrees ``min_degree`` to ``max_degree``.

    Args:
        forecast, truth: shape (..., lat, lon), broadcast against each other; anomalies where ``min_degree`` is 1.
        max_degree: default the largest degree free of aliasing (31 on 48×96).

    Returns:
        shape (...), dimensionless.

    Raises:
        ValueError: where no two degrees are left, or the grid has no spherical harmonics.
    """
    last = triangular_limit(grid) - 1 if max_degree is None else max_degree
    if last <= min_degree or min_degree < 0:
        raise ValueError(f"min_degree: found {min_degree}, expected 0 to {last - 1} on a grid of {grid.shape}")
    power, reference = (spherical_power(x, grid, last + 1)[..., min_degree:] for x in (forecast, truth))
    return divergence_of_spectra(power, reference)


def radial_power(values: Tensor) -> Tensor:
    """Mean 2-D FFT power in radial wavenumber bins, as ChaosBench bins it, shapes (..., lat, lon) to (..., bin)."""
    nlat, nlon = values.shape[-2:]
    ky, kx = torch.fft.fftfreq(nlat, dtype=torch.float64) * nlat, torch.fft.fftfreq(nlon, dtype=torch.float64) * nlon
    k = (ky[:, None] ** 2 + kx**2).sqrt().flatten()
    bins = len(torch.arange(0.5, float(k.max()), 1.0))
    index = ((k - 0.5) * bins / (float(k.max()) - 0.5)).floor().long().clamp(max=bins - 1)
    kept = (k >= 0.5).to(values.device)
    index = index.to(values.device)[kept]
    power = (torch.fft.fft2(values.double()).abs() ** 2).flatten(-2)[..., kept]
    total = power.new_zeros((*power.shape[:-1], bins)).index_add_(-1, index, power)
    mean: Tensor = total / torch.bincount(index, minlength=bins)
    return mean


@dataclass(frozen=True)
class BatchSpectralDivergence:
    """ChaosBench's SpecDiv, accumulated in chunks of dates: it needs the mean fields and nothing else.

    Attributes:
        forecast, truth: sums over dates, shape (channel, lat, lon).
        dates: how many were summed.
    """

    forecast: Tensor
    truth: Tensor
    dates: int

    @staticmethod
    def of(forecast: Tensor, truth: Tensor) -> BatchSpectralDivergence:
        """Start from fields of shape (time, channel, lat, lon)."""
        if forecast.shape != truth.shape or forecast.ndim != 4:
            found = f"{tuple(forecast.shape)} and {tuple(truth.shape)}"
            raise ValueError(f"forecast and truth: found shapes {found}, expected the same (time, channel, lat, lon)")
        return BatchSpectralDivergence(forecast.double().sum(dim=0), truth.double().sum(dim=0), forecast.shape[0])

    def merge(self, other: BatchSpectralDivergence) -> BatchSpectralDivergence:
        """The same over the dates of both."""
        dates = self.dates + other.dates
        return BatchSpectralDivergence(self.forecast + other.forecast, self.truth + other.truth, dates)

    def value(self, percentile: float = 0.9) -> Tensor:
        """SpecDiv per channel, shape (channel,), over the wavenumber bins above ``percentile``."""
        power, reference = radial_power(self.forecast / self.dates), radial_power(self.truth / self.dates)
        first = int(power.shape[-1] * percentile)
        return divergence_of_spectra(power[..., first:], reference[..., first:])
