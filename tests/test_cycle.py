"""Cycled toy experiments against the published errors of the same set-ups (Sakov and Oke 2008; DAPPER's tables)."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from genda.cycle import cycle
from genda.forecast.lorenz import Lorenz96
from genda.linalg import Diagonal
from genda.methods.baseline import Persistence
from genda.methods.ensemble_kalman import ETKF, EnKF
from genda.methods.letkf import LETKF
from genda.methods.localisation import Localisation, ring
from genda.methods.variational import DenseRoot, Variational
from genda.observations.operators import LinearOperator
from genda.problem import Source

MODEL, INTERVAL, TURNS, BURN = Lorenz96(), 0.05, 500, 100


@pytest.fixture(scope="module")
def experiment():
    """Truth, observations of every variable with unit error at every step, climatological covariance."""
    generator = torch.Generator().manual_seed(1)

    def states(count, spin):
        return MODEL.step(8 + torch.randn(count, *MODEL.shape, generator=generator, dtype=torch.float64), spin)

    truth = [states(1, 20.0)]
    for _ in range(TURNS):
        truth.append(MODEL.step(truth[-1], INTERVAL))
    truth = torch.cat(truth)
    operator = LinearOperator(sp.eye_array(40).tocsr(), MODEL.shape)
    unit = Diagonal(torch.ones(40, dtype=torch.float64))
    values = truth.flatten(1) + torch.randn(len(truth), 40, generator=generator, dtype=torch.float64)
    observations = [(Source(values[k], operator, unit),) for k in range(1, len(truth))]
    return truth, observations, torch.cov(states(2000, 10.0).flatten(1).T)


def rmse(experiment, method, members):
    truth, observations, _ = experiment
    generator = torch.Generator().manual_seed(2)
    start = truth[:1] + 0.03 * torch.randn(members, *MODEL.shape, generator=generator, dtype=torch.float64)
    turns = cycle(MODEL, method, start, observations, INTERVAL, generator)
    errors = [(turn.analysis.mean(dim=0) - truth[k + 1]).pow(2).mean().sqrt() for k, turn in enumerate(turns)]
    return float(np.mean(errors[BURN:]))


@pytest.mark.parametrize(
    ("method", "members", "published"),
    [
        (EnKF(1.06), 40, 0.22),
        (ETKF(1.013, rotate=True), 24, 0.18),
        (LETKF(Localisation(ring(40), 14.5), 1.04, rotate=True), 7, 0.22),
    ],
)
def test_filters_have_the_published_error(experiment, method, members, published):
    assert rmse(experiment, method, members) == pytest.approx(published, abs=0.03)


def test_a_static_covariance_has_the_published_error(experiment):
    method = Variational(DenseRoot.of(0.02 * experiment[2], MODEL.shape), inner=60)
    assert rmse(experiment, method, 1) == pytest.approx(0.41, abs=0.03)


def test_without_observations_the_error_is_that_of_two_random_states(experiment):
    assert rmse(experiment, Persistence(), 1) == pytest.approx(3.6 * 2**0.5, rel=0.1)


class LinearModel:
    """dx/dt = A x, solved exactly."""

    shape = (1, 1, 6)
    rates = torch.randn(6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 0.5 * torch.eye(6)

    def step(self, state, dt):
        return state @ torch.linalg.matrix_exp(dt * self.rates).T


@pytest.mark.parametrize("window", [1, 3, 20])
def test_in_a_linear_model_a_window_changes_nothing(window):
    """The analysis commutes with a linear forecast: the window's end is the filter's analysis."""
    model, generator = LinearModel(), torch.Generator().manual_seed(5)
    operator = LinearOperator(sp.eye_array(6).tocsr()[:2], model.shape)
    half = Diagonal(torch.full((2,), 0.5, dtype=torch.float64))
    values = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    observations = [(Source(v, operator, half),) for v in values]
    start = torch.randn(9, *model.shape, generator=generator, dtype=torch.float64)
    run = partial(cycle, model, ETKF(), start, observations, 0.1, generator)
    for filtered, smoothed in zip(run(), run(window=window), strict=True):
        torch.testing.assert_close(smoothed.forecast, filtered.forecast, rtol=0, atol=1e-10)
        torch.testing.assert_close(smoothed.analysis, filtered.analysis, rtol=0, atol=1e-10)


def test_a_negative_window_is_refused():
    with pytest.raises(ValueError, match="window: found -1 intervals"):
        next(cycle(MODEL, Persistence(), torch.zeros(1, *MODEL.shape), [()], INTERVAL, torch.Generator(), window=-1))
