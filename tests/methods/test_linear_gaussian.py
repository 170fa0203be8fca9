"""A linear-Gaussian case whose answer is the Kalman analysis: every method must find it."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from genda.linalg import BlockDiagonal, Diagonal
from genda.methods.ensemble_kalman import ETKF, EnKF, rotated
from genda.methods.envar import EnVar
from genda.methods.letkf import LETKF
from genda.methods.localisation import Localisation, gaspari_cohn, ring
from genda.methods.optimal_interpolation import OptimalInterpolation
from genda.methods.particle import ParticleFilter, importance_weights
from genda.methods.variational import DenseRoot, Variational
from genda.observations.operators import Composed, LinearOperator
from genda.problem import Problem, Source

SIZE = 24
SHAPE = (1, 1, SIZE)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def covariance():
    distance = (torch.arange(SIZE).view(-1, 1) - torch.arange(SIZE)).abs()
    distance = torch.minimum(distance, SIZE - distance).double()
    return gaspari_cohn(distance, 10.0) + 1e-3 * torch.eye(SIZE, dtype=torch.float64)


def source(seed=1, count=9):
    rows = np.random.default_rng(seed).choice(SIZE, count, replace=False)
    matrix = sp.csr_array((np.ones(count), (np.arange(count), rows)), shape=(count, SIZE))
    variance = 0.1 + torch.rand(count, generator=generator(seed), dtype=torch.float64)
    return Source(normal(count, seed=seed), LinearOperator(matrix, SHAPE), Diagonal(variance), f"s{seed}")


def kalman(background, sources):
    """The analysis and its covariance, from the normal equations written out."""
    precision, pull = covariance().inverse(), torch.zeros(SIZE, dtype=torch.float64)
    for s in sources:
        matrix = torch.as_tensor(s.operator.matrix.toarray())
        precision = precision + matrix.T @ (matrix / s.covariance.variance.unsqueeze(1)) * s.weight
        pull = pull + s.weight * matrix.T @ ((s.values - matrix @ background) / s.covariance.variance)
    posterior = precision.inverse()
    return background + posterior @ pull, posterior


def correlated(seed=1):
    """A source whose errors are correlated in two blocks, and the same with that matrix written out."""
    plain = source(seed)
    blocks = [torch.tensor([0, 3, 5, 6]), torch.tensor([1, 2, 4, 7, 8])]
    correlations = [0.3 * torch.eye(len(b), dtype=torch.float64) + 0.7 for b in blocks]
    covariance = BlockDiagonal.of(plain.covariance.variance.sqrt(), blocks, correlations)
    return Source(plain.values, plain.operator, covariance, plain.name)


def correlated_kalman(background, s):
    """The analysis with a full matrix R."""
    matrix = torch.as_tensor(s.operator.matrix.toarray())
    noise = s.covariance @ torch.eye(len(s.values), dtype=torch.float64)
    gain = covariance() @ matrix.T @ torch.linalg.inv(matrix @ covariance() @ matrix.T + noise)
    return background + gain @ (s.values - matrix @ background), covariance() - gain @ matrix @ covariance()


def ensemble(count, background, seed=5):
    """Members with exactly the mean and covariance of the background."""
    white = normal(count, SIZE, seed=seed)
    white = white - white.mean(dim=0)
    root = torch.linalg.cholesky((white.T @ white) / (count - 1))
    white = torch.linalg.solve_triangular(root, white.T, upper=False).T
    return (background + white @ torch.linalg.cholesky(covariance()).T).view(count, *SHAPE)


@pytest.mark.parametrize("inner", [SIZE, SIZE - 1])
def test_variational_is_the_kalman_analysis_solved_directly_or_by_conjugate_gradients(inner):
    background, sources = normal(SIZE, seed=3), (source(1), source(2))
    problem = Problem(SHAPE, sources, background.view(SHAPE))
    method = Variational(DenseRoot.of(covariance(), SHAPE), inner=inner, tolerance=1e-13)
    analysis = method.analyse(problem, 1, generator())
    torch.testing.assert_close(analysis.flatten(), kalman(background, sources)[0], rtol=0, atol=1e-8)


def test_optimal_interpolation_is_the_kalman_analysis_from_climatology():
    class Climate:
        def prior_covariance(self, v):
            return (v.flatten(1) @ covariance()).view(v.shape)

    sources = (source(1), source(2))
    method = OptimalInterpolation(Climate(), tolerance=1e-13)
    analysis = method.analyse(Problem(SHAPE, sources), 1, generator())
    expected, _ = kalman(torch.zeros(SIZE, dtype=torch.float64), sources)
    torch.testing.assert_close(analysis.double().flatten(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("inner", "count"), [(SIZE, 9), (SIZE, 20), (SIZE - 1, 9)])
def test_a_window_of_four_dimensions_is_the_kalman_smoother(inner, count):
    """Observations after a linear forecast M are observations of the initial state through H M, be they fewer or more than it."""
    background, later = normal(SIZE, seed=3), source(4, count)
    turn = torch.roll(torch.eye(SIZE, dtype=torch.float64), 3, dims=0) * 0.9
    propagated = Source(later.values, Composed(lambda x: x @ turn.T, later.operator), later.covariance)
    method = Variational(DenseRoot.of(covariance(), SHAPE), inner=inner, tolerance=1e-13)
    found = method.analyse(Problem(SHAPE, (source(1), propagated), background.view(SHAPE)), 1, generator())
    seen = LinearOperator(sp.csr_array(later.operator.matrix @ turn.numpy()), SHAPE)
    expected, _ = kalman(background, (source(1), Source(later.values, seen, later.covariance)))
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("inner", [SIZE, SIZE - 1])
def test_gauss_newton_finds_the_mode_of_a_nonlinear_window(inner):
    background, later = normal(SIZE, seed=3), source(4)
    bent = Source(later.values, Composed(lambda x: x + 0.1 * x**3, later.operator), later.covariance)
    problem = Problem(SHAPE, (bent,), background.view(SHAPE))
    method = Variational(DenseRoot.of(covariance(), SHAPE), outer=12, inner=inner, tolerance=1e-12)
    mode = method.analyse(problem, 1, generator())
    with torch.enable_grad():
        x = mode.clone().requires_grad_()
        prior = (x - background.view(SHAPE)).flatten()
        misfit = bent.misfit(x)[0]
        cost = prior @ torch.linalg.solve(covariance(), prior) + misfit @ bent.covariance.inverse(misfit)
        (gradient,) = torch.autograd.grad(cost, x)
    assert float((covariance() @ gradient.flatten()).abs().max()) < 1e-6


@pytest.mark.parametrize("method", [ETKF(), ETKF(rotate=True), LETKF(Localisation(ring(SIZE), 1e6), block=7)])
def test_a_transform_filter_with_an_exact_ensemble_is_the_kalman_filter(method):
    background, sources = normal(SIZE, seed=3), (source(1), source(2))
    problem = Problem(SHAPE, sources, ensemble=ensemble(SIZE + 10, background))
    members = method.analyse(problem, SIZE + 10, generator()).flatten(1)
    mean, posterior = kalman(background, sources)
    torch.testing.assert_close(members.mean(dim=0), mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(torch.cov(members.T), posterior, rtol=0, atol=1e-8)


def test_perturbed_observations_converge_to_the_kalman_filter():
    background, sources, count = normal(SIZE, seed=3), (source(1),), 2_000
    problem = Problem(SHAPE, sources, ensemble=ensemble(count, background))
    members = EnKF().analyse(problem, count, generator()).flatten(1)
    mean, posterior = kalman(background, sources)
    torch.testing.assert_close(members.mean(dim=0), mean, rtol=0, atol=1e-8)  # the noise has mean zero by construction
    assert float((torch.cov(members.T) - posterior).abs().max()) < 0.08


def test_the_hybrid_is_the_kalman_analysis_with_the_covariance_written_out():
    background, one, radius = normal(SIZE, seed=3), source(1), 9.0
    members = ensemble(SIZE + 10, background)[:8]
    localisation = Localisation(ring(SIZE), radius)
    method = EnVar(
        localisation,
        DenseRoot.of(covariance(), SHAPE),
        static_weight=0.3,
        ensemble_weight=0.7,
        tolerance=1e-12,
    )
    found = method.analyse(Problem(SHAPE, (one,), ensemble=members), 8, generator())
    flat = members.flatten(1)
    place = torch.as_tensor(localisation.coordinates)
    taper = gaspari_cohn(torch.cdist(place, place), radius)
    matrix = 0.3 * covariance() + 0.7 * taper * torch.cov(flat.T)
    seen = torch.as_tensor(one.operator.matrix.toarray())
    gain = matrix @ seen.T @ (seen @ matrix @ seen.T + torch.diag(one.covariance.variance)).inverse()
    expected = flat.mean(dim=0) + gain @ (one.values - seen @ flat.mean(dim=0))
    torch.testing.assert_close(found.mean(dim=0).flatten(), expected, rtol=0, atol=1e-8)


def test_localised_weights_are_those_of_a_point_by_point_filter():
    """Against Hunt et al. (2007) written out for one point: R^{-1} times the taper of each observation's distance."""
    background, one, radius = normal(SIZE, seed=3), source(1), 9.0
    members = ensemble(8 + SIZE, background)[:8]
    localisation = Localisation(ring(SIZE), radius)
    found = LETKF(localisation, inflation=1.1).analyse(Problem(SHAPE, (one,), ensemble=members), 8, generator())
    place = localisation.positions(one)
    for point in (0, 11):
        distance = torch.as_tensor(np.linalg.norm(place - localisation.coordinates[point], axis=1))
        weight = gaspari_cohn(distance, radius) / one.covariance.variance
        images = one.operator(members)
        spread, mean = images - images.mean(dim=0), members.mean(dim=0)
        inner = ((spread * weight) @ spread.T + 7 * torch.eye(8, dtype=torch.float64)).inverse()
        shift = inner @ (spread * weight) @ (one.values - images.mean(dim=0))
        values, vectors = torch.linalg.eigh(7 * inner)
        root = (vectors * values.sqrt()) @ vectors.T
        deviations = (members - mean)[:, 0, 0, point]
        expected = mean[0, 0, point] + shift @ deviations + 1.1 * (root @ deviations)
        torch.testing.assert_close(found[:, 0, 0, point], expected, rtol=0, atol=1e-8)


def test_a_rotation_keeps_mean_and_covariance():
    members = normal(7, *SHAPE, seed=8)
    turned = rotated(members, generator(3))
    torch.testing.assert_close(turned.mean(dim=0), members.mean(dim=0))
    torch.testing.assert_close(torch.cov(turned.flatten(1).T), torch.cov(members.flatten(1).T))
    assert float((turned - members).abs().max()) > 0.1


def test_particles_weigh_as_the_likelihood_and_resample_alike():
    one = source(1, count=1)
    particles = normal(4000, *SHAPE, seed=9)
    problem = Problem(SHAPE, (one,), ensemble=particles)
    weights = importance_weights(problem, particles)
    at = one.operator(particles)[:, 0]
    expected = torch.exp(-0.5 * (at - one.values) ** 2 / one.covariance.variance)
    torch.testing.assert_close(weights, expected / expected.sum())
    variance = float(one.covariance.variance)
    found = one.operator(ParticleFilter(jitter=0.1).analyse(problem, 4000, generator()))[:, 0]
    assert float(found.mean()) == pytest.approx(float(one.values) / (1 + variance), abs=0.05)
    assert float(found.var()) == pytest.approx(variance / (1 + variance), rel=0.12)


@pytest.mark.parametrize(
    "method",
    [EnKF(), ETKF(), LETKF(Localisation(ring(SIZE), 4.0)), EnVar(Localisation(ring(SIZE), 4.0)), ParticleFilter()],
)
def test_one_member_is_refused(method):
    problem = Problem(SHAPE, (source(1),), ensemble=normal(1, *SHAPE))
    with pytest.raises(ValueError, match="found 1 background members, expected at least 2"):
        method.analyse(problem, 1, generator())


def test_the_taper_is_that_of_gaspari_and_cohn():
    distance = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    found = gaspari_cohn(distance, 2.0)
    expected = torch.tensor([1.0, 263 / 384, 5 / 24, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_problem_that_does_not_fit_together_is_refused():
    good = source()
    with pytest.raises(ValueError, match="s1: found 1 error variances for 9 values"):
        Source(good.values, good.operator, Diagonal(torch.ones(1)), "s1")
    with pytest.raises(ValueError, match="operator of 9 rows for 8 values"):
        Source(good.values[:8], good.operator, Diagonal(torch.ones(8)), "s1")
    with pytest.raises(ValueError, match=r"s1: found states of \(1, 1, 24\), expected \(1, 1, 23\)"):
        Problem((1, 1, 23), (good,))
    with pytest.raises(ValueError, match=r"background: found a state of \(24,\), expected \(1, 1, 24\)"):
        Problem(SHAPE, (good,), background=torch.zeros(SIZE))
    with pytest.raises(ValueError, match="ensemble: found a value that is not finite"):
        Problem(SHAPE, (good,), ensemble=torch.full((3, *SHAPE), float("nan")))
    with pytest.raises(ValueError, match="covariance: found an eigenvalue of -1"):
        DenseRoot.of(-torch.eye(SIZE), SHAPE)


@pytest.mark.parametrize(
    "method",
    [
        Variational(DenseRoot.of(covariance(), SHAPE), inner=SIZE, tolerance=1e-13),
        ETKF(),
        LETKF(Localisation(ring(SIZE), 1e6), block=7),
    ],
)
@pytest.mark.parametrize("linear", [True, False])
def test_correlated_errors_give_the_analysis_of_the_full_matrix(method, linear):
    """Whatever the method, and whether H is a matrix or a function: R is turned into independent errors before they see it."""
    background, seen = normal(SIZE, seed=3), correlated()
    expected, posterior = correlated_kalman(background, seen)
    if not linear and isinstance(method, LETKF):
        pytest.skip("a local filter needs a matrix")
    if not linear:
        seen = Source(seen.values, Composed(lambda x: 1.0 * x, seen.operator), seen.covariance)
    members = ensemble(SIZE + 10, background)
    problem = Problem(SHAPE, (seen,), background.view(SHAPE), ensemble=members)
    count = 1 if isinstance(method, Variational) else SIZE + 10
    analysis = method.analyse(problem, count, generator()).flatten(1)
    torch.testing.assert_close(analysis.mean(dim=0), expected, rtol=0, atol=1e-8)
    if count > 1:
        torch.testing.assert_close(torch.cov(analysis.T), posterior, rtol=0, atol=1e-8)
    assert float((expected - kalman(background, (source(1),))[0]).abs().max()) > 0.05  # it makes a difference
