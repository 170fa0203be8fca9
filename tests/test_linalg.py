"""Krylov solvers against dense ones."""

from __future__ import annotations

import pytest
import torch

from genda.linalg import BlockDiagonal, Diagonal, conjugate_gradient, gmres, weighted_gram


def _systems(batch=5, n=12, symmetric=False):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(batch, n, n, dtype=torch.float64, generator=generator)
    a = a @ a.mT / n + torch.eye(n) if symmetric else a / n**0.5 + 2 * torch.eye(n)
    return a.double(), torch.randn(batch, n, dtype=torch.float64, generator=generator)


def test_conjugate_gradients_solve_symmetric_systems():
    a, b = _systems(symmetric=True)
    x = conjugate_gradient(lambda v: torch.einsum("bij,bj->bi", a, v), b, iterations=30)
    torch.testing.assert_close(x, torch.linalg.solve(a, b), atol=1e-9, rtol=1e-9)


def test_a_preconditioner_near_the_inverse_spares_iterations():
    a, b = _systems(symmetric=True)
    exact = torch.linalg.solve(a, b)

    def error(inverse, iterations):
        turned = None if inverse is None else lambda v: torch.einsum("bij,bj->bi", inverse, v)
        x = conjugate_gradient(lambda v: torch.einsum("bij,bj->bi", a, v), b, iterations, 1e-12, turned)
        return float((x - exact).norm() / exact.norm())

    assert error(torch.linalg.inv(a), 1) < 1e-10
    near = torch.linalg.inv(a + 0.05 * torch.diag_embed(torch.arange(12.0, dtype=torch.float64)))
    assert error(near, 5) < 0.01 * error(None, 5)


def test_gmres_solves_unsymmetric_systems_and_returns_its_coefficients():
    a, b = _systems()
    basis = []

    def product(v):
        basis.append(v)
        return torch.einsum("bij,bj->bi", a, v)

    x, coefficients = gmres(product, b, iterations=12)
    torch.testing.assert_close(x, torch.linalg.solve(a, b), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(torch.einsum("kbn,bk->bn", torch.stack(basis), coefficients), x)


def test_gmres_minimises_the_residual_over_the_krylov_space():
    a, b = _systems()
    k = 4
    x, _ = gmres(lambda v: torch.einsum("bij,bj->bi", a, v), b, iterations=k)
    krylov = torch.stack([torch.linalg.matrix_power(a, j) @ b.unsqueeze(-1) for j in range(k)], dim=-1).squeeze(2)
    best = torch.linalg.lstsq(a @ krylov, b.unsqueeze(-1)).solution
    residual = (b - torch.einsum("bij,bj->bi", a, x)).norm(dim=-1)
    torch.testing.assert_close(
        residual, (b.unsqueeze(-1) - a @ krylov @ best).squeeze(-1).norm(dim=-1), rtol=1e-6, atol=1e-9
    )


def test_a_sample_does_not_depend_on_its_neighbours():
    a, b = _systems()
    together, _ = gmres(lambda v: torch.einsum("bij,bj->bi", a, v), b, iterations=3)
    alone, _ = gmres(lambda v: torch.einsum("bij,bj->bi", a[2:3], v), b[2:3], iterations=3)
    torch.testing.assert_close(together[2:3], alone, rtol=1e-10, atol=1e-12)


def test_conjugate_gradients_stop_sample_by_sample():
    """Systems of very different condition: with one stop for all, the easy ones would go on with the hard ones."""
    generator = torch.Generator().manual_seed(5)
    eigenvalues = torch.stack([torch.linspace(1, top, 20, dtype=torch.float64) for top in (1.1, 10.0, 1e4)])
    b = torch.randn(3, 20, dtype=torch.float64, generator=generator)
    together = conjugate_gradient(lambda v: eigenvalues * v, b, 50, 1e-2)
    for i in range(3):
        own = eigenvalues[i : i + 1]
        alone = conjugate_gradient(lambda v, own=own: own * v, b[i : i + 1], 50, 1e-2)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=0)
    residual = (b - eigenvalues * together).norm(dim=-1)
    assert bool((residual <= 1e-2 * b.norm(dim=-1)).all())


def test_gmres_survives_a_space_that_closes_early():
    b = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, _ = gmres(lambda v: 4 * v, b, iterations=5)
    torch.testing.assert_close(x, b / 4)
    zero, _ = gmres(lambda v: 4 * v, torch.zeros(2, 6, dtype=torch.float64), iterations=5)
    assert bool((zero == 0).all())


def test_a_variance_must_be_positive():
    with pytest.raises(ValueError, match="not positive"):
        Diagonal(torch.tensor([1.0, 0.0]))


def test_a_weighted_gram_matrix_is_the_product_it_halves():
    a, weights = torch.randn(7, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(weighted_gram(a, weights, block=3), a @ torch.diag(weights) @ a.T)


def test_blocks_of_correlated_errors_are_the_matrix_written_out():
    generator = torch.Generator().manual_seed(1)
    blocks = [torch.tensor([4, 0, 2]), torch.tensor([1]), torch.tensor([5, 3])]
    deviation = 0.5 + torch.rand(6, dtype=torch.float64, generator=generator)
    dense = torch.zeros(6, 6, dtype=torch.float64)
    correlations = []
    for block in blocks:
        root = torch.randn(len(block), len(block) + 2, dtype=torch.float64, generator=generator)
        correlation = torch.corrcoef(root) if len(block) > 1 else torch.ones(1, 1, dtype=torch.float64)
        correlations.append(correlation)
        dense[block.unsqueeze(1), block] = correlation * torch.outer(deviation[block], deviation[block])
    covariance = BlockDiagonal.of(deviation, blocks, correlations)
    v = torch.randn(7, 6, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(covariance @ v, v @ dense)
    torch.testing.assert_close(covariance.inverse(v), torch.linalg.solve(dense, v.T).T)
    root = covariance.scale(torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(root.T @ root, dense)
    turned = covariance.decorrelated(torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(turned.T @ dense @ turned, torch.diag(deviation**2))
    with pytest.raises(ValueError, match="expected each in one block"):
        BlockDiagonal.of(deviation, blocks[:2], correlations[:2])
    with pytest.raises(ValueError, match="positive definite"):
        BlockDiagonal.of(deviation, blocks, [correlations[0], correlations[1], torch.ones(2, 2)])
