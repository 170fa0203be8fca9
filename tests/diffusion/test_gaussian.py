"""Gaussian denoisers against dense linear algebra and against samples; the sampler against its prior."""

from __future__ import annotations

import pytest
import torch

from genda.diffusion.denoiser import IsotropicGaussian, PreconditionedDenoiser
from genda.diffusion.gaussian import DenseGaussian, SphericalGaussian
from genda.diffusion.noise import MemberNoise, derived_seed, karras_schedule
from genda.diffusion.sampler import Sampler
from genda.grid import LatLonGrid
from genda.sphere import SphericalTransform, degree_power

GRID = LatLonGrid.gaussian(16, 32)


def _homogeneous(count, channels=2, seed=0):
    """Fields with channel covariance [[1, .6], [.6, 1]] in every degree and a spectrum that falls with degree."""
    transform = SphericalTransform(GRID)
    generator = torch.Generator().manual_seed(seed)
    lmax = transform.lmax
    a = torch.randn(count, channels, lmax, lmax, 2, generator=generator)
    a[..., 0, :] *= torch.tensor([2**0.5, 0.0])
    a = torch.view_as_complex(a) * torch.tril(torch.ones(lmax, lmax)) / 2**0.5
    mixing = torch.linalg.cholesky(torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
    spectrum = (1 + (torch.arange(lmax) / 3.0) ** 3).rsqrt()
    return transform.synthesis(torch.einsum("cd,bdlm->bclm", mixing.to(a.dtype), a) * spectrum.view(-1, 1)), spectrum


def test_fitted_covariance_is_the_one_the_fields_were_drawn_from():
    fields, spectrum = _homogeneous(600)
    fitted = SphericalGaussian.fit(fields, GRID)
    expected = torch.einsum("l,cd->lcd", spectrum**2, torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
    scale = expected.diagonal(dim1=1, dim2=2).mean(dim=1).view(-1, 1, 1)
    assert ((fitted.covariance - expected) / scale).abs()[1:].max() < 0.15
    assert fitted.remainder.max() < 1e-10
    torch.testing.assert_close(fitted.degree_variance.sum(0), fields.pow(2).mean((0, 2, 3)), rtol=0.05, atol=0)


def test_parseval():
    fields, _ = _homogeneous(5)
    weights = torch.as_tensor(GRID.area_weights).float().view(-1, 1)
    power = degree_power(SphericalTransform(GRID).analysis(fields)).sum(-1)
    torch.testing.assert_close(power, (weights * fields**2).mean((-2, -1)), rtol=1e-4, atol=1e-5)


def test_prior_covariance_is_symmetric_and_is_the_sample_covariance():
    fields, _ = _homogeneous(3000)
    fitted = SphericalGaussian.fit(fields, GRID)
    generator = torch.Generator().manual_seed(5)
    u, v = (torch.randn(1, 2, *GRID.shape, generator=generator) for _ in range(2))
    left, right = (u * fitted.prior_covariance(v)).sum(), (v * fitted.prior_covariance(u)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-3)
    delta = torch.zeros(1, 2, *GRID.shape)
    delta[0, 0, 8, 4] = 1.0
    sampled = (fields[:, 0, 8, 4].view(-1, 1, 1, 1) * fields).mean(0)
    assert (fitted.prior_covariance(delta)[0] - sampled).abs().max() < 0.12 * sampled.abs().max()


def test_wiener_filter_beats_the_isotropic_denoiser_and_knows_its_error():
    train, _ = _homogeneous(400)
    test, _ = _homogeneous(200, seed=1)
    scale = train.std()
    train, test = train / scale, test / scale
    fitted = SphericalGaussian.fit(train, GRID)
    noise = torch.randn(test.shape, generator=torch.Generator().manual_seed(2))
    weights = torch.as_tensor(GRID.area_weights).float().view(-1, 1)
    for sigma in (torch.tensor(0.2), torch.tensor(1.0), torch.tensor(5.0)):
        error, isotropic = (
            (weights * (d(test + sigma * noise, sigma) - test) ** 2).mean().sqrt()
            for d in (fitted, IsotropicGaussian())
        )
        assert error < 0.9 * isotropic
        assert error.item() == pytest.approx(fitted.error_std(sigma.view(1)).pow(2).mean().sqrt().item(), rel=0.08)


def test_conditional_covariance_of_a_dense_gaussian_is_its_derivative():
    """cov(x | x_t) = sigma² dD/dx_t (Tweedie's second identity)."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(24, 24, dtype=torch.float64, generator=generator)
    gaussian = DenseGaussian(torch.zeros(1, 4, 6, dtype=torch.float64), root @ root.T / 24)
    v = torch.randn(1, 1, 4, 6, dtype=torch.float64, generator=generator)
    sigma = torch.tensor(0.6, dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda x: gaussian(x, sigma), (v * 0.3,), (v,))
    torch.testing.assert_close(gaussian.conditional_covariance(v, sigma), sigma**2 * derivative)


def test_isotropic_base_is_edm_preconditioning():
    """Karras et al. 2022, Table 1: c_skip, c_out, c_in, c_noise at sigma_data = 1."""
    seen = {}

    class Network(torch.nn.Module):
        def forward(self, inputs, c_noise, condition):
            seen.update(inputs=inputs, c_noise=c_noise)
            return torch.ones_like(inputs)

    x, sigma = torch.randn(2, 3, 4, 5), torch.tensor([0.5, 4.0])
    result = PreconditionedDenoiser(Network(), IsotropicGaussian(), sees_base=False)(x, sigma)
    s = sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(result, x / (1 + s**2) + s / (1 + s**2).sqrt())
    torch.testing.assert_close(seen["inputs"], x / (1 + s**2).sqrt())
    torch.testing.assert_close(seen["c_noise"], sigma.log() / 4)


def test_heun_draws_the_gaussian_it_is_given():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    covariance, mean = root @ root.T / 12, torch.linspace(-1, 1, 12, dtype=torch.float64).view(1, 3, 4)
    gaussian = DenseGaussian(mean, covariance)
    for sampler in (Sampler(steps=64, sigma_min=0.002), Sampler(steps=64, sigma_min=0.002, churn=10, churn_noise=1.0)):
        samples = sampler.sample(gaussian, (1, 3, 4), 4000, seed=3, dtype=torch.float64).flatten(1)
        assert (samples.mean(0) - mean.flatten()).abs().max() < 0.08
        assert (torch.cov(samples.T) - covariance).abs().max() < 0.12 * covariance.abs().max()


def test_a_denoiser_that_fails_stops_the_run_with_the_step_named():
    def broken(x_t, sigma, condition=None):
        return x_t * float("nan") if sigma[0] < 1 else x_t / 2

    with pytest.raises(FloatingPointError, match="sampling step"):
        Sampler(steps=8).sample(broken, (1, 2, 2), 2, seed=0)


def test_schedule_is_the_published_one():
    """Karras et al. 2022, Eq. 5 with rho = 7, sigma 0.002 to 80, N = 18: ends and the value after one step."""
    levels = karras_schedule(18, 0.002, 80.0)
    assert levels[0].item() == pytest.approx(80.0)
    assert levels[1].item() == pytest.approx(57.586, rel=1e-4)
    assert levels[17].item() == pytest.approx(0.002)
    assert levels[18].item() == 0


def test_noise_belongs_to_the_member():
    both, one = MemberNoise(4, [0, 7]), MemberNoise(4, [7])
    torch.testing.assert_close(both.normal((3, 2))[1], one.normal((3, 2))[0])
    assert derived_seed(0, "2001-01-01") == derived_seed(0, "2001-01-01") != derived_seed(1, "2001-01-01")


def test_the_error_a_dense_gaussian_claims_is_the_one_it_makes():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    prior = DenseGaussian(torch.zeros(2, 1, 3, dtype=torch.float64), root @ root.T)
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64)
    x = torch.randn(40_000, 6, dtype=torch.float64, generator=generator) @ root.T
    x = x.view(-1, 2, 1, 3)
    for level, claimed in zip(sigma, prior.error_std(sigma), strict=True):
        noisy = x + level * torch.randn(x.shape, dtype=torch.float64, generator=generator)
        made = (prior(noisy, level) - x).pow(2).mean(dim=(0, 2, 3), keepdim=True)[0].sqrt()
        torch.testing.assert_close(claimed, made, rtol=0.01, atol=0)
