"""Cycled analyses beside DAPPER's: Lorenz-63 as in Sakov et al. (2012), the same truth, observations and settings.

Deterministic methods agree analysis by analysis, stochastic ones in the error over time. DAPPER 1.7.1 brings 600 MB with it and
is therefore no part of the test extra: ``pip install dapper==1.7.1``.
"""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from genda.cycle import cycle
from genda.forecast.lorenz import Lorenz63
from genda.linalg import Diagonal
from genda.methods.ensemble_kalman import ETKF, EnKF
from genda.methods.variational import DenseRoot, Variational
from genda.observations.operators import LinearOperator
from genda.problem import Source
from genda.verify import paired_difference

pytest.importorskip("dapper", reason="DAPPER is not installed (pip install dapper==1.7.1)")

MODEL, INTERVAL, TURNS, BURN = Lorenz63(), 0.25, 400, 40


@pytest.fixture(scope="module")
def dapper():
    import dapper
    from dapper import da_methods, mods
    from dapper.mods.Lorenz63 import step, x0

    dapper.rc.liveplotting = False

    class Observation(mods.Operator):
        def __call__(self, x):
            """4D-Var of DAPPER 1.7.1 asks the operator of a time for the operator of that time once more."""
            return self if np.ndim(x) == 0 else super().__call__(x)

    def tangent(x, t, dt):
        """The step's derivative; DAPPER's own takes the tendency's for constant over the step."""
        moved = 1e-5 * np.eye(3)
        return ((step(x + moved, t, dt) - step(x - moved, t, dt)) / 2e-5).T

    observed = Observation(noise=2, **mods.partial_Id_Obs(3, np.arange(3)))
    sequence = mods.Chronology(0.01, dko=25, Ko=TURNS - 1, BurnIn=0)
    forecast = {"M": 3, "model": step, "linear": tangent, "noise": 0}
    start = mods.GaussRV(C=2, mu=x0)
    setup = mods.HiddenMarkovModel(forecast, {"time_dependent": lambda ko: observed}, sequence, start)
    dapper.set_seed(1)
    truth, values = setup.simulate()

    def analyses(method, settings, first=None, turns=TURNS):
        """Ensemble means (turn, 3) of a DAPPER method, begun with the given members."""
        begun = start if first is None else mods.RV(M=3, func=lambda count: first)
        short = mods.Chronology(0.01, dko=25, Ko=turns - 1, BurnIn=0)
        run = getattr(da_methods, method)(**settings)
        run.assimilate(mods.HiddenMarkovModel(setup.Dyn, setup.Obs, short, begun), truth, values[:turns])
        return run.stats.mu.a

    analyses.truth, analyses.values, analyses.mean = truth, np.stack(values), np.asarray(x0)
    return analyses


def genda(dapper, method, first, window=0, turns=TURNS):
    """Ensemble means (turn, 3) of a genda method."""
    operator = LinearOperator(sp.eye_array(3).tocsr(), MODEL.shape)
    two = Diagonal(torch.full((3,), 2.0, dtype=torch.float64))
    observations = [(Source(torch.as_tensor(y), operator, two),) for y in dapper.values[:turns]]
    start = torch.as_tensor(np.atleast_2d(first)).view(-1, *MODEL.shape)
    cycled = cycle(MODEL, method, start, observations, INTERVAL, torch.Generator().manual_seed(7), window)
    return torch.stack([turn.analysis.mean(dim=0).flatten() for turn in cycled]).numpy()


def errors(dapper, analyses):
    """RMSE of every analysis after the first few."""
    truth = dapper.truth[25::25]
    return np.sqrt(((analyses - truth) ** 2).mean(axis=1))[BURN:]


def root(dapper, factor):
    return DenseRoot.of(torch.as_tensor(factor * np.cov(dapper.truth.T)), MODEL.shape)


def ensemble(dapper, count):
    return dapper.mean + 2**0.5 * np.random.default_rng(3).standard_normal((count, 3))


def test_the_static_analysis_is_dappers(dapper):
    ours = genda(dapper, Variational(root(dapper, 0.1)), dapper.mean)
    np.testing.assert_allclose(ours, dapper("Var3D", {"xB": 0.1}), rtol=0, atol=1e-6)
    assert errors(dapper, ours).mean() == pytest.approx(1.04, abs=0.1)


def test_the_window_of_four_dimensions_is_dappers(dapper):
    ours = genda(dapper, Variational(root(dapper, 0.01), outer=9), dapper.mean, window=2, turns=10)
    theirs = dapper("Var4D", {"Lag": 2, "xB": 0.01, "nIter": 9}, turns=10)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_the_transform_filter_is_dappers(dapper):
    """Analysis by analysis, for a while: round-off grows where ten deviations of three variables cancel."""
    first = ensemble(dapper, 10)
    ours = genda(dapper, ETKF(1.05), first, turns=120)
    theirs = dapper("EnKF", {"upd_a": "Sqrt", "N": 10, "infl": 1.05}, first, turns=120)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_perturbed_observations_have_dappers_error(dapper):
    first = ensemble(dapper, 100)
    ours = errors(dapper, genda(dapper, EnKF(1.01), first))
    theirs = errors(dapper, dapper("EnKF", {"upd_a": "PertObs", "N": 100, "infl": 1.01}, first))
    assert ours.mean() == pytest.approx(0.56, abs=0.1)
    difference = paired_difference(ours, theirs)
    assert difference.p > 0.01
    assert difference.stderr < 0.05
