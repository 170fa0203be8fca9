"""The sampler's schedules and walks, and that none of them leaves the prior."""

import pytest
import torch

from genda.diffusion.gaussian import DenseGaussian
from genda.diffusion.noise import MemberNoise, vp_cosine_schedule, vp_cosine_sigma
from genda.diffusion.sampler import Sampler

SHAPE = (1, 2, 3)


def gaussian():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    return DenseGaussian(torch.ones(SHAPE, dtype=torch.float64), a @ a.T / 6)


@pytest.mark.parametrize(
    ("sampler", "tolerance"),
    [
        (Sampler(steps=40, schedule="vp-cosine", sigma_min=0.01), 0.12),
        (Sampler(steps=150, schedule="vp-cosine", sigma_min=0.01, fresh=1.0), 0.25),  # first order: variance is lost
        (Sampler(steps=40, sigma_min=0.01, jump=4, repeats=3), 0.12),
    ],
)
def test_draws_have_the_mean_and_covariance_of_the_prior(sampler, tolerance):
    prior = gaussian()
    draws = sampler.sample(prior, SHAPE, 4000, seed=0, dtype=torch.float64).flatten(1)
    covariance = (prior.eigenvectors * prior.eigenvalues) @ prior.eigenvectors.T
    scale = float(prior.eigenvalues.mean())
    assert float((draws.mean(dim=0) - 1).abs().max()) < 0.07
    assert float((draws.T.cov() - covariance).abs().max()) < tolerance * scale


def test_multistep_is_of_second_order_with_one_call_a_step():
    # The flow of a Gaussian of variance 2 is x(t) = x(T) sqrt((2 + t²) / (2 + T²)).
    variance, calls = 2.0, []

    def denoiser(x, sigma, condition=None):
        calls.append(float(sigma[0]))
        return variance / (variance + sigma.view(-1, 1, 1, 1) ** 2) * x

    def error(steps, multistep):
        sampler = Sampler(steps=steps, sigma_min=1e-4, sigma_max=20.0, multistep=multistep)
        x = sampler.sample(denoiser, SHAPE, 2, seed=0, dtype=torch.float64)
        exact = MemberNoise(0, range(2)).normal(SHAPE, x) * 20.0 * (variance / (variance + 400.0)) ** 0.5
        return float((x / exact - 1).abs().max())

    coarse, fine = error(40, True), error(80, True)
    assert len(calls) == 40 + 80
    assert coarse / fine == pytest.approx(4.0, rel=0.15)
    assert fine < 1.1 * error(80, False)  # Heun's method, at twice the calls


def test_repaints_walk_goes_back_as_often_as_it_is_told():
    assert list(Sampler(steps=3, sigma_min=0.1, jump=2, repeats=2).walk()) == [
        (0, 1), (1, 2), (2, 0), (0, 1), (1, 2), (2, 3), (3, 2), (2, 3),
    ]  # fmt: skip
    assert list(Sampler(steps=3).walk()) == [(0, 1), (1, 2), (2, 3)]


def test_the_cosine_schedule_is_uniform_in_its_time():
    levels = vp_cosine_schedule(9, 0.02, 80.0)
    assert levels[[0, 8, 9]].tolist() == pytest.approx([80.0, 0.02, 0.0])
    times = torch.linspace(0, 1, 100001, dtype=torch.float64)
    found = times[torch.searchsorted(vp_cosine_sigma(times), levels[:-1].flip(0))]
    torch.testing.assert_close(found.diff(), found.diff().mean().expand(8), rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"fresh": -0.5}, "fresh -0.5"),
        ({"jump": 0}, "jump 0"),
        ({"schedule": "linear"}, "schedule 'linear'"),
        ({"steps": 1}, "found 1 steps"),
        ({"schedule": "vp-cosine", "sigma_min": 1e-4}, "expected 0.001 <= sigma_min"),
        ({"multistep": True, "churn": 5.0}, "multistep with churn"),
        ({"multistep": True, "second_order": False}, "multistep first-order"),
    ],
)
def test_settings_without_meaning_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        Sampler(**settings)


def test_antithetic_members_lie_on_either_side_of_a_gaussian_mean_in_any_batch():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    mean = torch.zeros(1, 3, 4, dtype=torch.float64)
    gaussian = DenseGaussian(mean, a @ a.T / 12)
    sampler = Sampler(steps=12, sigma_max=30.0, churn=2.0, antithetic=True)
    x = sampler.sample(gaussian, mean.shape, 6, 0, dtype=torch.float64)
    torch.testing.assert_close(0.5 * (x[0::2] + x[1::2]), mean.expand(3, -1, -1, -1), rtol=0, atol=1e-9)
    assert float((x[0] - x[2]).abs().max()) > 0.1
    torch.testing.assert_close(sampler.sample(gaussian, mean.shape, 6, 0, batch=1, dtype=torch.float64), x)
    torch.testing.assert_close(sampler.sample(gaussian, mean.shape, 5, 0, dtype=torch.float64), x[:5])
    parts = [sampler.sample(gaussian, mean.shape, 3, 0, first_member=i, dtype=torch.float64) for i in (0, 3)]
    torch.testing.assert_close(torch.cat(parts), x)
    with pytest.raises(ValueError, match="batch: found 0"):
        sampler.sample(gaussian, mean.shape, 6, 0, batch=0)
