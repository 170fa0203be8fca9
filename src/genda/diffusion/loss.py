r"""The denoising loss of EDM on any Gaussian base, and the validation error by noise level.

    L = E_{sigma, n} mean_c < (D(x + sigma n; sigma) - x)² >_area / c_out,c(sigma)²,    ln sigma ~ N(P_mean, P_std²),

with c_out the base's own rms error of each channel: the base alone scores 1 in every channel at every noise level, so
that what is left below 1 is what the network has learned. With the isotropic base this is the loss of
Karras et al. (2022, arXiv 2206.00364, Eq. 2 and Table 1); P_mean -0.5, P_std 1.5 are paper 001's values (§3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genda.diffusion.denoiser import per_sample
from genda.diffusion.noise import derived_seed

VALIDATION_SIGMAS = (0.02, 0.05, 0.2, 0.5, 1.0, 3.0, 10.0, 40.0)


def draw_noise(
    shape: Sequence[int],
    seeds: Sequence[int],
    p_mean: float = -0.5,
    p_std: float = 1.5,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Noise level and noise of each sample, a function of its seed alone and not of batch or process.

    Args:
        shape: (channel, lat, lon).
        seeds: one per sample.
        p_mean: mean of ln sigma.
        p_std: standard deviation of ln sigma.
        device: where the draws are made.

    Returns:
        sigma (batch,) and standard normal noise (batch, channel, lat, lon).
    """
    sigmas, noises = [], []
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(seed)
        sigmas.append(torch.randn((), generator=generator, device=device))
        noises.append(torch.randn(tuple(shape), generator=generator, device=device))
    return (p_mean + p_std * torch.stack(sigmas)).exp(), torch.stack(noises)


def denoising_loss(
    denoiser: Any,
    x0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    condition: Tensor | None,
    area_weights: Tensor,
) -> Tensor:
    """Weighted squared denoising error of each sample.

    Args:
        denoiser: ``D(x_t, sigma, condition)`` with a Gaussian ``base`` that has ``error_std``.
        x0: normalised states, shape (batch, channel, lat, lon).
        sigma: shape (batch,).
        noise: standard normal, shape of ``x0``.
        condition: shape (batch, k), or None.
        area_weights: mean 1, shape (lat,).

    Returns:
        shape (batch,); 1 is what the base alone scores on average.
    """
    error = denoiser(x0 + per_sample(sigma, x0) * noise, sigma, condition) - x0
    scaled = error / denoiser.base.error_std(sigma)
    loss: Tensor = (area_weights.view(-1, 1) * scaled**2).mean(dim=(1, 2, 3))
    return loss


@torch.no_grad()
def error_by_noise_level(
    denoiser: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x0: Tensor,
    condition: Tensor | None,
    area_weights: Tensor,
    sigmas: Sequence[float] = VALIDATION_SIGMAS,
    seed: int = 0,
    batch: int = 16,
) -> Tensor:
    """Mean squared denoising error E|D - x|² at fixed noise levels with fixed noise, so that runs can be compared.

    Args:
        denoiser: ``D(x_t, sigma, condition)``.
        x0: normalised validation states, shape (sample, channel, lat, lon).
        condition: shape (sample, k), or None.
        area_weights: mean 1, shape (lat,).
        sigmas: the noise levels.
        seed: of the noise; sample i sees the same noise at every call.
        batch: samples at a time.

    Returns:
        shape (sigma, channel), in units of each channel's variance.
    """
    weights = area_weights.view(-1, 1)
    rows = []
    for sigma in sigmas:
        total = torch.zeros(x0.shape[1], dtype=torch.float64, device=x0.device)
        for start in range(0, len(x0), batch):
            x = x0[start : start + batch].float()
            seeds = [derived_seed(seed, sigma, i) for i in range(start, start + len(x))]
            noise = draw_noise(x.shape[1:], seeds)[1].to(x)
            level = torch.full((len(x),), sigma, device=x.device)
            estimate = denoiser(
                x + sigma * noise, level, None if condition is None else condition[start : start + batch]
            )
            total += (weights * (estimate - x) ** 2).mean(dim=(2, 3)).sum(dim=0).double()
        rows.append(total / len(x0))
    return torch.stack(rows)
