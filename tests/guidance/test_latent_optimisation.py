"""Latent optimisation against the Kalman posterior, its optimisers against each other, and what happens when one fails."""

import logging

import pytest
import torch

from genda.diffusion.gaussian import DenseGaussian
from genda.diffusion.sampler import Sampler
from genda.guidance.gaussian import GaussianGuidance
from genda.guidance.latent_optimisation import LatentOptimisation, Optimiser
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.linalg import Diagonal
from genda.observations.operators import Composed, LinearOperator
from genda.problem import Problem, Source

SHAPE = (1, 4, 4)
SIGMA = torch.tensor([0.7, 0.7], dtype=torch.float64)


def prior(scale=1.0):
    torch.manual_seed(0)
    a = torch.randn(16, 16, dtype=torch.float64)
    covariance = scale * (a @ a.T / 16 if scale != 1.0 else torch.eye(16, dtype=torch.float64))
    return DenseGaussian(torch.zeros(SHAPE, dtype=torch.float64), covariance)


def problem(function=None, error=0.1):
    import scipy.sparse as sp

    matrix = sp.csr_array(sp.eye_array(16).tocsr()[::3])
    operator = LinearOperator(matrix, SHAPE)
    if function is not None:
        operator = Composed(function, operator)
    values = torch.linspace(-1, 1.5, 6, dtype=torch.float64)
    return Problem(SHAPE, (Source(values, operator, Diagonal(torch.full((6,), error**2, dtype=torch.float64))),))


def state():
    return torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_with_the_priors_covariance_a_linear_problem_has_the_exact_posterior_denoiser():
    gaussian = prior(2.0)
    found = LatentOptimisation(gaussian, problem(), optimiser=Optimiser(inner=100))(state(), SIGMA)
    expected = GaussianGuidance(gaussian, problem(), gaussian)(state(), SIGMA)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("optimiser", [Optimiser("lbfgs", 100), Optimiser("adam", 3000, rate=0.01)])
def test_all_optimisers_find_the_same_minimum_of_a_curved_problem(optimiser):
    curved = problem(lambda x: x + 0.2 * x**2)
    newton = LatentOptimisation(prior(), curved, metric="isotropic", optimiser=Optimiser(iterations=10, inner=100))
    other = LatentOptimisation(prior(), curved, metric="isotropic", optimiser=optimiser)
    torch.testing.assert_close(other(state(), SIGMA), newton(state(), SIGMA), rtol=0, atol=2e-3)


def test_for_a_white_prior_isotropic_is_the_covariance():
    found = LatentOptimisation(prior(), problem(), metric="isotropic", optimiser=Optimiser(inner=100))(state(), SIGMA)
    torch.testing.assert_close(found, LatentOptimisation(prior(), problem())(state(), SIGMA), rtol=0, atol=1e-4)


def test_strict_consistency_fits_every_observation_and_morozov_stops_where_noise_begins():
    def chi_square(discrepancy):
        optimiser = Optimiser("lbfgs", 200, discrepancy=discrepancy)
        found = LatentOptimisation(prior(), problem(), metric="strict", optimiser=optimiser)(state(), SIGMA)
        return (problem().stacked.misfit(found) ** 2).mean(dim=-1) / 0.1**2

    assert (chi_square(None) < 1e-4).all()
    assert (chi_square(1.0) <= 1.0).all()


def test_unscheduled_levels_keep_the_prior_and_sampling_uses_the_others():
    gaussian = prior(2.0)
    late = LatentOptimisation(gaussian, problem(), scheduled=lambda sigma: sigma < 0.5)
    torch.testing.assert_close(late(state(), SIGMA), gaussian(state(), SIGMA))
    late_misfit, free_misfit = (
        problem().stacked.misfit(Sampler(steps=16, sigma_max=20.0).sample(d, SHAPE, 8, 0, dtype=torch.float64)).square()
        for d in (late, gaussian)
    )
    assert float(late_misfit.mean()) < 0.1 * float(free_misfit.mean())


@pytest.mark.parametrize("function", [lambda x: x * float("nan"), lambda x: (x - 5.0).abs().sqrt() * 1e3])
def test_a_minimisation_that_fails_keeps_the_prior_and_says_so_once(function, caplog):
    guided = LatentOptimisation(
        prior(), problem(function), metric="isotropic", optimiser=Optimiser("adam", 3, rate=1e4)
    )
    with caplog.at_level(logging.WARNING):
        found = [guided(state(), SIGMA) for _ in range(2)]
    torch.testing.assert_close(found[0], prior()(state(), SIGMA))
    assert guided.fallbacks == 4
    assert len(caplog.records) == 1


def test_combinations_without_meaning_are_refused():
    with pytest.raises(ValueError, match="'strict' with gauss-newton"):
        LatentOptimisation(prior(), problem(), metric="strict")
    with pytest.raises(ValueError, match="no Gaussian near the prior"):
        LatentOptimisation(lambda x, s, c=None: x, problem())

@pytest.mark.parametrize(
    "guidance",
    [
        lambda prior, given: LatentOptimisation(prior, given),
        lambda prior, given: LatentOptimisation(prior, given, metric="isotropic", optimiser=Optimiser("lbfgs")),
        lambda prior, given: LatentOptimisation(prior, given, metric="strict", optimiser=Optimiser("adam")),
        lambda prior, given: MMPS(prior, given),
        lambda prior, given: SDA(prior, given, gamma=0.1),
    ],
)
def test_an_operator_without_gradient_is_refused(guidance):
    deaf = problem(lambda x: torch.from_numpy(x.detach().numpy() ** 2))
    with pytest.raises(ValueError, match="without gradient, expected torch functions of the state"):
        guidance(prior(), deaf)(state(), SIGMA)
