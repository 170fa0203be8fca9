"""The Lorenz-63 benchmark with a linear model from a Gaussian, where the posterior is the Kalman smoother's."""

from __future__ import annotations

import pytest
import scipy.sparse as sp
import torch
from benchmarks.lorenz63_posterior import Case, forecast_from, iterated, posterior_draws, sequential

from genda.linalg import Diagonal
from genda.methods.ensemble_kalman import EnKF
from genda.observations.operators import LinearOperator
from genda.problem import Source

TIMES, OBSERVED, VARIANCE = 5, (1, 4), 0.3
MEMBERS = 600
SHAPE = (3, 1, TIMES)
STEP = torch.tensor([[0.8, 0.5, 0.0], [-0.5, 0.8, 0.2], [0.0, 0.1, 0.9]], dtype=torch.float64)


class _Linear:
    shape = (3, 1, 1)

    def step(self, state, dt):
        return torch.einsum("ij,...jkl->...ikl", STEP, state.double())


def _start(count, seed):
    white = torch.randn(count, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return forecast_from(_Linear(), white.expand(-1, -1, -1, TIMES), 0)


def _case(members):
    sources = []
    for t, value in zip(OBSERVED, (1.2, -0.4), strict=True):
        reads = sp.csr_array(([1.0], ([0], [t])), shape=(1, 3 * TIMES))
        variance = Diagonal(torch.tensor([VARIANCE], dtype=torch.float64))
        sources.append(Source(torch.tensor([value]).double(), LinearOperator(reads, SHAPE), variance))
    return Case("linear", torch.zeros(SHAPE), OBSERVED, tuple(sources), members, SHAPE)


def _exact(case):
    basis = forecast_from(_Linear(), torch.eye(3).double().view(3, 3, 1, 1).expand(-1, -1, -1, TIMES), 0).flatten(1)
    covariance = basis.T @ basis
    h = torch.as_tensor(case.problem.stacked.operator.matrix.toarray())
    gain = covariance @ h.T @ torch.linalg.inv(h @ covariance @ h.T + VARIANCE * torch.eye(len(h)))
    return gain @ case.problem.stacked.values, covariance - gain @ h @ covariance


@pytest.mark.parametrize("kind", ["particles", "EnKF", "multiple data assimilation"])
def test_the_posterior_of_a_linear_model_is_the_kalman_smoothers(kind):
    case, generator = _case(_start(MEMBERS, 0)), torch.Generator().manual_seed(1)
    if kind == "particles":
        draws, effective = posterior_draws(case.problem, _start(100_000, 2), MEMBERS, generator)
        assert 10_000 < effective < 60_000
    elif kind == "EnKF":
        draws = sequential(_Linear(), EnKF(), case, generator)
    else:
        draws = iterated(_Linear(), case, generator, 3)
    mean, covariance = _exact(case)
    draws, scale = draws.flatten(1), covariance.diagonal().max()
    assert (draws.mean(dim=0) - mean).abs().max() < 5 * (scale / MEMBERS) ** 0.5
    assert (draws.T.cov() - covariance).abs().max() < 5 * (2 / MEMBERS) ** 0.5 * scale


def test_windows_of_long_trajectories_are_particles_of_their_own():
    """Of one trajectory longer than the window, the window that fits the observations gets all the weight."""
    long = torch.zeros(2, 3, 1, TIMES + 3)
    long[1, 0, 0, 2 + OBSERVED[0]], long[1, 0, 0, 2 + OBSERVED[1]] = 1.2, -0.4
    case = _case(long[..., :TIMES])
    sharp = tuple(Source(s.values, s.operator, Diagonal(torch.tensor([1e-4]))) for s in case.sources)
    problem = Case("sharp", case.truth, OBSERVED, sharp, case.ensemble, SHAPE).problem
    draws, effective = posterior_draws(problem, long, 10, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws, long[1, ..., 2 : 2 + TIMES].expand(10, -1, -1, -1))
    assert effective == pytest.approx(1)
