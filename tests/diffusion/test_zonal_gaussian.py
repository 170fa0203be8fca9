"""The zonal Gaussian against dense linear algebra and its own draws."""

import pytest
import torch

from genda.diffusion.noise import MemberNoise
from genda.diffusion.zonal_gaussian import ZonalGaussian

SHAPE = (2, 3, 6)
SIZE = 36


def gaussian(modes):
    """Random spectra of two channels on three latitudes and six longitudes; real where a wave is its own conjugate."""
    generator = torch.Generator().manual_seed(0)
    spectra = []
    for m in range(SHAPE[2] // 2 + 1):
        a = torch.randn(6, 6, dtype=torch.complex128, generator=generator)
        a = a.real.to(a.dtype) if m in (0, 3) else a
        spectra.append(a @ a.mH / 6)
    total = sum((1 if m in (0, 3) else 2) * float(s.diagonal().real.sum()) for m, s in enumerate(spectra))
    return ZonalGaussian.truncated(spectra, SHAPE, modes).double(), total


def dense(g):
    return g.prior_covariance(torch.eye(SIZE, dtype=torch.float64).view(-1, *SHAPE)).flatten(1)


@pytest.mark.parametrize("modes", [24, 10, 1])
def test_denoiser_and_conditional_covariance_are_those_of_its_matrix(modes):
    g, total = gaussian(modes)
    covariance = dense(g)
    assert float(covariance.trace()) == pytest.approx(total)
    torch.testing.assert_close(covariance, covariance.T)
    x, levels = torch.randn(2, *SHAPE, dtype=torch.float64), torch.tensor([0.3, 2.0], dtype=torch.float64)
    for i, sigma in enumerate(levels):
        filtered = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(SIZE, dtype=torch.float64))
        torch.testing.assert_close(g(x, levels)[i].flatten(), filtered @ x[i].flatten())
        posterior = covariance - filtered @ covariance
        torch.testing.assert_close(g.conditional_covariance(x, levels)[i].flatten(), posterior @ x[i].flatten())
        expected = posterior.diagonal().view(SHAPE).mean(dim=-1, keepdim=True).sqrt()
        torch.testing.assert_close(g.error_std(levels)[i], expected, rtol=1e-5, atol=0)


def test_all_modes_give_back_the_covariance_and_draws_have_it():
    g, _ = gaussian(24)
    covariance = dense(g)
    draws = g.sample(MemberNoise(0, range(20000))).double().flatten(1)
    sampled = draws.T @ draws / len(draws)
    assert float((sampled - covariance).norm() / covariance.norm()) < 0.03


@pytest.mark.parametrize("modes", [24, 10, 1])
def test_within_a_point_the_conditional_covariance_is_that_of_its_matrix(modes):
    g, _ = gaussian(modes)
    covariance = dense(g)
    for sigma in torch.tensor([0.3, 2.0, torch.inf], dtype=torch.float64):
        gain = covariance @ torch.linalg.inv(covariance / sigma**2 + torch.eye(SIZE, dtype=torch.float64))
        points = gain.view(*SHAPE, *SHAPE)
        for lat, local in enumerate(g.local_covariance(sigma)):
            torch.testing.assert_close(points[:, lat, 4, :, lat, 4], local)
