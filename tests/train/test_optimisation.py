"""Schedules and averages against closed forms, the orthogonal update against the singular value decomposition."""

import pytest
import torch

from genda.train.optimisation import Muon, WeightAverage, learning_rate_factor, orthogonalised, power_exponent


def test_the_average_has_power_function_weights():
    """beta_t = (1 - 1/t)^(g+1) telescopes: after T steps step i weighs (i^(g+1) - (i-1)^(g+1)) / T^(g+1)."""
    parameter = torch.zeros(1, dtype=torch.float64)
    average = WeightAverage([parameter], relative_width=0.1)
    values = torch.sin(torch.arange(1, 41, dtype=torch.float64))
    for step, value in enumerate(values, start=1):
        average.update([value.view(1)], step)
    power = torch.arange(41, dtype=torch.float64) ** (average.exponent + 1)
    weights = power.diff() / power[-1]
    torch.testing.assert_close(average.average[0], (weights * values).sum().view(1))


def test_exponents_published_by_karras_2024():
    assert power_exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert power_exponent(0.10) == pytest.approx(6.94, abs=0.01)
    with pytest.raises(ValueError, match="relative width"):
        power_exponent(0.5)


def test_swapping_twice_changes_nothing():
    parameter = torch.nn.Parameter(torch.ones(3))
    average = WeightAverage([parameter])
    average.average[0].fill_(2.0)
    average.swap([parameter])
    assert parameter.tolist() == [2.0] * 3
    average.swap([parameter])
    assert parameter.tolist() == [1.0] * 3
    assert average.average[0].tolist() == [2.0] * 3


def test_learning_rate_rises_stays_and_falls():
    factor = [learning_rate_factor(i, total=1000, warmup=100, decay=0.5) for i in (0, 49, 99, 500, 750, 1000, 1200)]
    assert factor == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert learning_rate_factor(999, total=1000, warmup=0, decay=0.0) == 1.0


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_orthogonalised_has_the_singular_vectors_and_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    result = u.T @ orthogonalised(matrix) @ vh.T
    diagonal = result.diagonal()
    assert bool(((diagonal > 0.6) & (diagonal < 1.3)).all())
    torch.testing.assert_close(result - torch.diag(diagonal), torch.zeros(6, 6), rtol=0, atol=1e-4)


def test_other_parameters_follow_torchs_adam():
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimisers = [
        Muon([], [ours], 0.1, betas=(0.9, 0.99)),
        torch.optim.Adam([theirs], 0.1, betas=(0.9, 0.99), eps=1e-8),
    ]
    for _ in range(5):
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = 2 * parameter.detach() ** 3
            optimiser.step()
    torch.testing.assert_close(ours, theirs)
