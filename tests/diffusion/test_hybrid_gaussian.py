"""The hybrid Gaussian against dense linear algebra with an explicit Schur product, and its own draws."""

import pytest
import torch

from genda.diffusion.hybrid_gaussian import EnsembleBase
from genda.diffusion.noise import MemberNoise
from genda.diffusion.zonal_gaussian import ZonalGaussian

SHAPE = (2, 3, 6)
SIZE, POINTS = 36, 18
WEIGHTS = (0.4, 0.7)


def zonal(modes=10):
    generator = torch.Generator().manual_seed(0)
    spectra = []
    for m in range(SHAPE[2] // 2 + 1):
        a = torch.randn(6, 6, dtype=torch.complex128, generator=generator)
        a = a.real.to(a.dtype) if m in (0, 3) else a
        spectra.append(a @ a.mH / 6)
    return ZonalGaussian.truncated(spectra, SHAPE, modes).double()


def case():
    """The Gaussian and its covariance, written out."""
    base, generator = zonal(), torch.Generator().manual_seed(1)
    taper = torch.randn(POINTS, 4, dtype=torch.float64, generator=generator)
    members = torch.randn(5, *SHAPE, dtype=torch.float64, generator=generator)
    deviations = members - members.mean(dim=0)
    a, rho = deviations.flatten(1), (taper @ taper.T).repeat(SHAPE[0], SHAPE[0])
    static = base.prior_covariance(torch.eye(SIZE, dtype=torch.float64).view(-1, *SHAPE)).flatten(1)
    covariance = WEIGHTS[0] * static + WEIGHTS[1] * rho * (a.T @ a) / 4
    return EnsembleBase(taper, *WEIGHTS, 1.0).joined(base, deviations), covariance


def conditional(covariance, sigma):
    filtered = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(SIZE, dtype=torch.float64))
    return filtered, covariance - filtered @ covariance


def close(found, expected):
    """Modes are orthonormal to single precision."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_denoiser_and_covariances_are_those_of_its_matrix():
    g, covariance = case()
    x, levels = torch.randn(3, *SHAPE, dtype=torch.float64), torch.tensor([0.3, 2.0, 0.3], dtype=torch.float64)
    close(g.prior_covariance(x).flatten(1), x.flatten(1) @ covariance)
    for i, sigma in enumerate(levels):
        filtered, posterior = conditional(covariance, sigma)
        close(g(x, levels)[i].flatten(), filtered @ x[i].flatten())
        close(g.conditional_covariance(x, levels)[i].flatten(), posterior @ x[i].flatten())
        close(g.conditional_covariance(x, sigma)[i].flatten(), posterior @ x[i].flatten())


def test_draws_have_its_covariance():
    g, covariance = case()
    draws = g.sample(MemberNoise(0, range(20000))).double().flatten(1)
    assert float((draws.T @ draws / len(draws) - covariance).norm() / covariance.norm()) < 0.03


def test_the_scale_of_a_network_is_that_of_the_zonal_gaussian_it_was_trained_with():
    sigma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    torch.testing.assert_close(case()[0].error_std(sigma), zonal().error_std(sigma))


def test_what_cannot_be_joined_is_refused():
    deviations = torch.randn(3, *SHAPE)
    with pytest.raises(ValueError, match="found a taper of 7 points, expected 18"):
        EnsembleBase(torch.ones(7, 1), 0.5, 0.5, 1.0).joined(zonal(), deviations)
    with pytest.raises(ValueError, match="found Identity, expected a zonal Gaussian"):
        EnsembleBase(torch.ones(18, 1), 0.5, 0.5, 1.0).joined(torch.nn.Identity(), deviations)
    with pytest.raises(ValueError, match="found weights -1, 1, expected finite ones"):
        EnsembleBase(torch.ones(18, 1), -1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="found weights nan, 1, expected finite ones"):
        EnsembleBase(torch.ones(18, 1), float("nan"), 1.0, 1.0)
    with pytest.raises(ValueError, match="found a correction of -7, expected a share from 0 to 1"):
        EnsembleBase(torch.ones(18, 1), 0.5, 0.5, -7.0)
