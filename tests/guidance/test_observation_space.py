"""Increments in observation space: the direct solve against conjugate gradients and against the control variable."""

import numpy as np
import scipy.sparse as sp
import torch

from genda.guidance import observation_space
from genda.guidance.gaussian import kalman_increment
from genda.linalg import Diagonal
from genda.methods.variational import DenseRoot, Variational
from genda.observations.operators import LinearOperator
from genda.problem import Problem, Source

SHAPE = (2, 3, 4)
SIZE = 24


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case():
    factor = normal(SIZE, SIZE)
    root = DenseRoot.of(factor @ factor.T / SIZE + 0.1 * torch.eye(SIZE, dtype=torch.float64), SHAPE)
    matrix = sp.csr_array(([0.5, 0.5, 1.0, 2.0, -1.0], ([0, 0, 1, 2, 2], [3, 4, 9, 20, 23])), shape=(3, SIZE))
    source = Source(normal(3, seed=1), LinearOperator(matrix, SHAPE), Diagonal(torch.tensor([0.1, 0.2, 0.3]).double()))
    return root, source


def test_the_direct_solve_is_that_of_conjugate_gradients():
    root, source = case()
    x = normal(5, *SHAPE, seed=2)
    found = observation_space.increment(root, source, x, source.misfit(x), 100, 1e-14)
    expected = kalman_increment(root.covariance, source, x, source.misfit(x), 100, 1e-14)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_only_what_observations_read_is_touched():
    _, source = case()
    assert observation_space.touched(source.operator).tolist() == [3, 4, 9, 20, 23]


def test_the_control_variable_finds_the_same_minimum(monkeypatch):
    root, source = case()
    problem = Problem(SHAPE, (source,), background=normal(*SHAPE, seed=3))
    direct = Variational(root).analyse(problem, 1, torch.Generator())
    monkeypatch.setattr(observation_space, "DENSE", 1)
    iterated = Variational(root, inner=200, tolerance=1e-14).analyse(problem, 1, torch.Generator())
    torch.testing.assert_close(iterated, direct, rtol=0, atol=1e-9)


def test_observations_of_tiny_error_are_fitted():
    root, source = case()
    exact = Source(source.values, source.operator, Diagonal(torch.full((3,), 1e-12, dtype=torch.float64)))
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    found = x + observation_space.increment(root, exact, x, exact.misfit(x), 10, 1e-6)
    np.testing.assert_allclose(exact.operator(found)[0], exact.values, atol=1e-9)
