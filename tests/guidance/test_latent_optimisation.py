"""Latent optimisation against the Kalman posterior, its optimisers against each other, and what happens when one fails."""

import logging
import math
from dataclasses import replace

import pytest
import scipy.sparse as sp
import torch

from genda.diffusion.gaussian import DenseGaussian
from genda.diffusion.noise import MemberNoise
from genda.diffusion.sampler import Sampler
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.guidance import latent_optimisation
from genda.guidance.gaussian import GaussianGuidance, kalman_increment
from genda.guidance.latent_optimisation import LatentOptimisation, Optimiser
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.linalg import Diagonal
from genda.observations.operators import Composed, LinearOperator, Stack
from genda.problem import Problem, Source

SHAPE = (1, 4, 4)
SIGMA = torch.tensor([0.7, 0.7], dtype=torch.float64)


def prior(scale=1.0):
    torch.manual_seed(0)
    a = torch.randn(16, 16, dtype=torch.float64)
    covariance = scale * (a @ a.T / 16 if scale != 1.0 else torch.eye(16, dtype=torch.float64))
    return DenseGaussian(torch.zeros(SHAPE, dtype=torch.float64), covariance)


def problem(function=None, error=0.1):
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


def zonal():
    """One channel on four latitudes and longitudes."""
    generator = torch.Generator().manual_seed(3)
    spectra = [torch.randn(4, 4, dtype=torch.complex128, generator=generator) for _ in range(3)]
    spectra = [s.real.to(s.dtype) if m in (0, 2) else s for m, s in enumerate(spectra)]
    return ZonalGaussian.truncated([s @ s.mH for s in spectra], SHAPE, 8).double()


@pytest.mark.parametrize("stacked", [False, True])
def test_observations_almost_without_error_are_solved_for_exactly(stacked, monkeypatch):
    monkeypatch.setattr(latent_optimisation, "TOLERANCE", 1e-12)
    gaussian, given = zonal(), problem(error=1e-4)
    if stacked:
        (source,) = given.sources
        given = Problem(SHAPE, (Source(source.values, Stack((source.operator,)), source.covariance),))
    found = LatentOptimisation(gaussian, given, optimiser=Optimiser(inner=1))(state(), SIGMA)
    h = torch.as_tensor(problem().sources[0].operator.matrix.toarray())
    unit = torch.eye(16, dtype=torch.float64).view(-1, *SHAPE)
    c, estimate = gaussian.conditional_covariance(unit, SIGMA[0]).flatten(1), gaussian(state(), SIGMA)
    gain = c @ h.T @ torch.linalg.inv(h @ c @ h.T + 1e-8 * torch.eye(6, dtype=torch.float64))
    expected = estimate.flatten(1) + (given.sources[0].values - estimate.flatten(1) @ h.T) @ gain.T
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-6)


def test_levels_that_differ_between_members_are_left_to_conjugate_gradients():
    levels = torch.tensor([0.4, 0.9], dtype=torch.float64)
    both = LatentOptimisation(zonal(), problem(), optimiser=Optimiser(inner=100))(state(), levels)
    for member, sigma, x in zip(both, levels, state(), strict=True):
        alone = LatentOptimisation(zonal(), problem())(x.unsqueeze(0), sigma)
        torch.testing.assert_close(member, alone[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("metric", ["covariance", "isotropic"])
def test_an_observation_of_infinite_error_is_none(metric):
    gaussian, given = zonal(), problem()
    (source,) = given.sources
    infinite = torch.tensor([math.inf, *[0.01] * 3, math.inf, 0.01], dtype=torch.float64)
    kept = torch.isfinite(infinite).numpy()
    operator = LinearOperator(source.operator.matrix[kept], SHAPE)
    fewer = Source(source.values[kept], operator, Diagonal(infinite[kept]))
    sources = (replace(source, covariance=Diagonal(infinite)), fewer)
    some = [LatentOptimisation(gaussian, Problem(SHAPE, (each,)), metric=metric) for each in sources]
    found, expected = (optimisation(state(), torch.tensor(2.0, dtype=torch.float64)) for optimisation in some)
    assert not some[0].fallbacks
    torch.testing.assert_close(found, expected)


def test_every_level_is_solved_to_three_digits():
    gaussian, given = zonal(), problem(error=1e-3)
    optimisation = LatentOptimisation(gaussian, given)
    h = torch.as_tensor(given.sources[0].operator.matrix.toarray())
    unit = torch.eye(16, dtype=torch.float64).view(-1, *SHAPE)
    for level in (40.0, 3.0, 0.7, 0.05):
        sigma = torch.tensor(level, dtype=torch.float64)
        found, estimate = optimisation(state(), sigma), gaussian(state(), sigma).flatten(1)
        c = gaussian.conditional_covariance(unit, sigma).flatten(1)
        seen = h @ c @ h.T + 1e-6 * torch.eye(6, dtype=torch.float64)
        d = given.sources[0].values - estimate @ h.T
        expected = estimate + d @ torch.linalg.solve(seen, h @ c)
        # the difference in the norm of the problem, against that of what is solved for
        scale = (d @ torch.linalg.solve(seen, d.T)).diagonal()
        difference = (found.flatten(1) - expected) @ h.T
        assert ((difference @ torch.linalg.solve(seen, difference.T)).diagonal() <= 1e-5 * scale).all()


def columns():
    """Fields of five channels that hardly differ, all of them observed at some points, and the Gaussian they are from."""
    shape, generator = (5, 12, 24), torch.Generator().manual_seed(3)
    spectra = []
    for m in range(13):
        smooth = torch.exp(-(torch.cdist(torch.arange(12.0).view(-1, 1), torch.arange(12.0).view(-1, 1)) ** 2) / 8)
        between = torch.ones(5, 5) + 0.01 * torch.eye(5)
        spectra.append((torch.kron(between, smooth) / (1 + m)).to(torch.complex128))
    gaussian = ZonalGaussian.truncated(spectra, shape, 700).double()
    points = (torch.rand(12 * 24, generator=generator) < 0.1).nonzero().flatten()
    rows = (points + 12 * 24 * torch.arange(5).view(-1, 1)).flatten()
    matrix = sp.csr_array(sp.eye_array(5 * 12 * 24).tocsr()[rows.numpy()])
    truth = gaussian.sample(MemberNoise(0, range(1))).double()
    errors = Diagonal(torch.full((len(rows),), 1e-6, dtype=torch.float64))
    source = Source(truth.flatten()[rows], LinearOperator(matrix, shape), errors)
    return gaussian, Problem(shape, (source,))


def test_columns_almost_without_error_are_solved_for_in_fewer_products_than_without_a_preconditioner(monkeypatch):
    gaussian, given = columns()
    x, sigma = torch.zeros(1, *given.shape, dtype=torch.float64), torch.tensor(30.0, dtype=torch.float64)
    h = torch.as_tensor(given.sources[0].operator.matrix.toarray())
    c = gaussian.conditional_covariance(torch.eye(h.shape[1], dtype=torch.float64).view(-1, *given.shape), sigma)
    seen = h @ c.flatten(1) @ h.T + 1e-6 * torch.eye(len(h), dtype=torch.float64)
    expected = (torch.linalg.solve(seen, given.sources[0].values) @ h @ c.flatten(1)).view(given.shape)

    def off(found):
        return float((found[0] - expected).norm() / expected.norm())

    assert off(LatentOptimisation(gaussian, given)(x, sigma)) < 0.01
    monkeypatch.setattr(latent_optimisation, "PRODUCTS", 25)
    source, spread = given.stacked, lambda v: gaussian.conditional_covariance(v, sigma)
    plain = off(kalman_increment(spread, source, x, source.misfit(x), 25, 1e-3))
    assert off(LatentOptimisation(gaussian, given)(x, sigma)) < 0.15 * plain


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
