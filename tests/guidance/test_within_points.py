"""The preconditioner of observed columns against the matrix it stands for."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from genda.guidance import within_points
from genda.guidance.within_points import WithinPoints

SHAPE = (3, 2, 4)


def local(sigma):
    """C_t of points that know nothing of each other, on two latitudes."""
    a = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c = a @ a.mT
    return c @ torch.linalg.inv(c + sigma**2 * torch.eye(3, dtype=torch.float64)) * sigma**2


def covariance(sigma):
    """The same as a matrix of flattened fields."""
    blocks = local(torch.tensor(sigma))
    full = torch.zeros(3, 8, 3, 8, dtype=torch.float64)
    for point in range(8):
        full[:, point, :, point] = blocks[point // 4]
    return full.reshape(24, 24)


def rows():
    """Several of one point, one of another, and none that mixes points."""
    h = np.zeros((5, 24))
    h[0, 1], h[1, [1, 9]], h[2, 17] = 1.0, (0.5, -2.0), 1.0
    h[3, 6], h[4, 22] = 1.0, 3.0
    return sp.csr_array(h)


def test_where_points_know_nothing_of_each_other_it_is_the_inverse():
    variance = torch.linspace(0.1, 0.5, 5, dtype=torch.float64)
    within, h = WithinPoints(rows(), SHAPE, variance, local), torch.as_tensor(rows().toarray())
    v = torch.randn(2, 5, dtype=torch.float64)
    for sigma in (0.2, 3.0):
        matrix = h @ covariance(sigma) @ h.T + torch.diag(variance)
        torch.testing.assert_close(within.near(sigma)(v), v @ torch.linalg.inv(matrix))


def test_a_row_between_points_counts_where_it_reads_most():
    h = np.zeros((2, 24))
    h[0, [1, 2]], h[1, 5] = (0.3, 0.7), 1.0
    variance = torch.full((2,), 0.1, dtype=torch.float64)
    found = WithinPoints(sp.csr_array(h), SHAPE, variance, local).near(1.0)(torch.ones(1, 2, dtype=torch.float64))
    expected = [1 / (local(torch.tensor(1.0))[latitude, 0, 0] + 0.1) for latitude in (0, 1)]
    torch.testing.assert_close(found[0], torch.stack(expected))


def test_large_blocks_are_cut(monkeypatch):
    monkeypatch.setattr(within_points, "LARGEST", 2)
    variance = torch.full((5,), 0.1, dtype=torch.float64)
    found = WithinPoints(rows(), SHAPE, variance, local).near(1.0)(torch.eye(5, dtype=torch.float64))
    h = torch.as_tensor(rows().toarray())
    full = h @ covariance(1.0) @ h.T + torch.diag(variance)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for part in ([0, 1], [2], [3, 4]):
        expected[np.ix_(part, part)] = torch.linalg.inv(full[np.ix_(part, part)])
    torch.testing.assert_close(found, expected)


def test_memory_is_that_of_the_blocks_and_not_of_the_largest_at_every_point():
    """Five hundred observations of one point, one of each other: a quarter of a million numbers and not 500 million."""
    shape, variance = (3, 40, 50), torch.full((2499,), 0.1, dtype=torch.float64)
    points = np.concatenate([np.zeros(500, dtype=int), np.arange(1, 2000)])
    h = sp.csr_array((np.ones(2499), (np.arange(2499), points)), shape=(2499, 6000))
    within = WithinPoints(h, shape, variance, lambda _: torch.eye(3, dtype=torch.float64).expand(40, 3, 3))
    assert sum(members.shape[0] * members.shape[1] ** 2 for members in within._members) < 300_000
    found = within.near(1.0)(torch.ones(1, 2499, dtype=torch.float64))[0]
    torch.testing.assert_close(found[:500], torch.full((500,), 1 / 500.1, dtype=torch.float64))
    torch.testing.assert_close(found[500:], torch.full((1999,), 1 / 1.1, dtype=torch.float64))


@pytest.mark.parametrize("count", [0, 2])
def test_nothing_observed_and_rows_that_read_nothing(count):
    variance = torch.full((count,), 0.5, dtype=torch.float64)
    found = WithinPoints(sp.csr_array((count, 24)), SHAPE, variance, local).near(1.0)
    v = torch.ones(1, count, dtype=torch.float64)
    torch.testing.assert_close(found(v), 2 * v)
