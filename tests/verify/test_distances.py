"""Distances between samples against scipy in one dimension and closed forms for Gaussians."""

import math

import pytest
import torch
from scipy import stats

from genda.verify import energy_distance, sliced_wasserstein


def _normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_energy_distance_is_scipys_without_the_pairs_of_a_member_with_itself():
    x, y = _normal(7, 1), 1.5 * _normal(11, 1, seed=1) + 0.3
    within = [float((v - v.T).abs().mean()) for v in (x, y)]
    expected = stats.energy_distance(x[:, 0], y[:, 0]) ** 2 - within[0] / 6 - within[1] / 10
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_of_shifted_gaussians():
    """X - Y ~ N(shift, 2), X - X' ~ N(0, 2): folded normals."""
    shift, s = 0.8, math.sqrt(2)
    folded = s * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    expected = 2 * folded - 2 * s * math.sqrt(2 / math.pi)
    found = [energy_distance(_normal(300, 1, seed=i), _normal(300, 1, seed=100 + i) + shift) for i in range(30)]
    error = stats.sem(found)
    assert sum(found) / 30 == pytest.approx(expected, abs=3 * error)
    assert error < 0.05 * expected


def test_the_energy_distance_between_samples_of_one_distribution_is_zero_on_average():
    found = [energy_distance(_normal(40, 5, seed=i), _normal(60, 5, seed=1000 + i)) for i in range(100)]
    assert abs(sum(found) / 100) < 3 * stats.sem(found)


def test_wasserstein_is_scipys_in_one_dimension_for_samples_of_different_sizes():
    x, y = _normal(6, 1), _normal(15, 1, seed=1) ** 2
    expected = stats.wasserstein_distance(x[:, 0], y[:, 0])
    assert sliced_wasserstein(x, y, torch.Generator().manual_seed(0), 3) == pytest.approx(expected, rel=1e-12)


def test_the_sliced_distance_of_a_shift_is_its_mean_projection():
    """E|uᵀd| = ‖d‖ Γ(d/2) / (√π Γ((d+1)/2)), 1/2 in three dimensions."""
    x = _normal(50, 3)
    shift = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64)
    found = sliced_wasserstein(x, x + shift, torch.Generator().manual_seed(0), 20_000)
    assert found == pytest.approx(1.5, rel=0.02)


def test_samples_of_vectors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="expected two members or more of one length"):
        energy_distance(_normal(5, 2), _normal(5, 3))
