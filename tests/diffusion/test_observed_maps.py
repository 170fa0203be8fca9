"""Observations as maps: what a column at a grid point and a station between grid points become."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from genda.diffusion.observed_maps import observed_maps
from genda.linalg import Diagonal
from genda.observations.operators import Composed, LinearOperator
from genda.problem import Problem, Source

SHAPE = (2, 3, 4)


def problem(rows, values, variance, weight=1.0):
    matrix = sp.csr_array(np.array(rows))
    source = Source(
        torch.tensor(values), LinearOperator(matrix, SHAPE), Diagonal(torch.tensor(variance)), "stations", weight
    )
    return Problem(SHAPE, (source,), torch.zeros(SHAPE))


def row(**weights):
    out = np.zeros(24)
    for index, weight in weights.items():
        out[int(index[1:])] = weight
    return out


def test_a_column_is_itself_in_units_of_the_background_error():
    given = problem([row(p5=1.0), row(p17=1.0)], [3.0, -1.0], [1.0, 0.5])
    values, density = observed_maps(given, torch.zeros(SHAPE), torch.tensor([4.0, 0.25]))
    expected = torch.zeros(24)
    expected[5], expected[17] = 3.0 / 2.0, -1.0 / 0.5
    torch.testing.assert_close(values.flatten(), expected)
    expected[5], expected[17] = 4.0 / 5.0, 0.25 / 0.75
    torch.testing.assert_close(density.flatten(), expected)


def test_a_station_between_points_touches_both_and_the_surer_of_two_counts_more():
    given = problem([row(p0=0.75, p1=0.25), row(p1=1.0)], [2.0, 5.0], [1.0, 1e-9])
    values, density = observed_maps(given, torch.zeros(SHAPE), torch.ones(2))
    torch.testing.assert_close(values.flatten()[:2], torch.tensor([2.0, (0.25 * 0.5 * 2.0 + 5.0) / (0.25 * 0.5 + 1.0)]))
    thousand = problem([1000 * row(p0=0.75, p1=0.25), row(p1=1.0)], [2000.0, 5.0], [1e6, 1e-9])
    for found, expected in zip(
        observed_maps(thousand, torch.zeros(SHAPE), torch.ones(2)), (values, density), strict=True
    ):
        torch.testing.assert_close(found, expected)  # units of an observation do not matter
    torch.testing.assert_close(density.flatten()[:2], torch.tensor([0.75 * 0.5, 1.0]))


def test_a_difference_pulls_its_points_apart():
    values, density = observed_maps(problem([row(p5=1.0, p6=-1.0)], [4.0], [4.0]), torch.zeros(SHAPE), torch.ones(2))
    torch.testing.assert_close(values.flatten()[5:7], torch.tensor([2.0, -2.0]))
    torch.testing.assert_close(density.flatten()[5:7], torch.tensor([0.25, 0.25]))


def test_innovations_are_about_the_background_and_weights_divide_errors():
    given = problem([row(p5=1.0)], [3.0], [1.0], weight=4.0)
    values, density = observed_maps(given, torch.ones(SHAPE), torch.ones(2))
    assert float(values.flatten()[5]) == pytest.approx(2.0)
    assert float(density.flatten()[5]) == pytest.approx(1 / (1 + 0.25))


def test_operators_without_a_matrix_are_refused_by_name():
    given = problem([row(p5=1.0)], [3.0], [1.0])
    source = given.sources[0]
    squared = Source(source.values, Composed(torch.square, source.operator), source.covariance, "radiances")
    with pytest.raises(ValueError, match="radiances: found an operator that is no matrix"):
        observed_maps(Problem(SHAPE, (squared,), torch.zeros(SHAPE)), torch.zeros(SHAPE), torch.ones(2))


def test_what_a_background_holds_exactly_has_nothing_to_tell():
    given = problem([row(p5=1.0), row(p17=1.0)], [3.0, -1.0], [1.0, 0.5])
    values, density = observed_maps(given, torch.zeros(SHAPE), torch.tensor([4.0, 0.0]))
    assert values.flatten()[5] == 1.5
    assert not values[0, 1].any()
    assert not density[0, 1].any()
