"""Krylov solvers and covariances for batches of problems that share nothing but their size.

Every product acts on (batch, n) at once and every norm is taken per sample: a solver that mixed the samples of a batch
would make a member depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


class Covariance(Protocol):
    """A symmetric positive definite matrix of observation errors; ``v`` is (batch, n)."""

    def __matmul__(self, v: Tensor) -> Tensor: ...

    def inverse(self, v: Tensor) -> Tensor: ...

    def scale(self, white: Tensor) -> Tensor:
        """A root of the matrix times unit white noise: a draw of the errors."""
        ...


@dataclass(frozen=True)
class Diagonal:
    """Independent errors with the given variances, shape (n,); an infinite variance is an observation that says nothing."""

    variance: Tensor

    def __post_init__(self) -> None:
        if self.variance.ndim != 1 or not bool((self.variance > 0).all()):
            raise ValueError(
                "observation-error variance: found values that are not positive, expected a positive vector"
            )

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.variance.to(v) * v

    def inverse(self, v: Tensor) -> Tensor:
        return v / self.variance.to(v)

    def scale(self, white: Tensor) -> Tensor:
        return white * self.variance.to(white).sqrt()


@dataclass(frozen=True)
class BlockDiagonal:
    """Errors that are correlated within blocks: S C S with standard deviations S and a correlation C of blocks.

    Attributes:
        deviation: S, shape (n,).
        rows: members of each block, shape (block, k), −1 where a block is shorter; every one of n belongs to one block.
        root: lower Cholesky factors of the blocks of C, shape (block, k, k), those of the unit matrix where there is no member.
    """

    deviation: Tensor
    rows: Tensor
    root: Tensor

    def __post_init__(self) -> None:
        members = self.rows[self.rows >= 0]
        if not torch.equal(members.sort().values, torch.arange(len(self.deviation), device=members.device)):
            found = f"found {len(members)} members for {len(self.deviation)} errors"
            raise ValueError(f"correlated errors: {found}, expected each in one block")
        if not bool((self.deviation > 0).all()) or not bool(torch.isfinite(self.root).all()):
            raise ValueError(
                "correlated errors: found deviations or blocks that are not positive, expected positive definite"
            )

    @staticmethod
    def of(deviation: Tensor, blocks: Sequence[Tensor], correlations: Sequence[Tensor]) -> BlockDiagonal:
        """From the members (k,) and the correlation (k, k) of every block.

        Raises:
            ValueError: for a block that is not positive definite, or members that are not each of n once.
        """
        longest = max(len(block) for block in blocks)
        rows = torch.full((len(blocks), longest), -1)
        root = torch.eye(longest, dtype=torch.float64).repeat(len(blocks), 1, 1)
        for i, (block, correlation) in enumerate(zip(blocks, correlations, strict=True)):
            lower, failed = torch.linalg.cholesky_ex(correlation.double())
            rows[i, : len(block)], root[i, : len(block), : len(block)] = block, lower if not int(failed) else torch.nan
        return BlockDiagonal(deviation, rows, root)

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.scale(self._by_blocks(v * self.deviation.to(v), lambda root, x: root.mT @ x))

    def inverse(self, v: Tensor) -> Tensor:
        white = self._by_blocks(v / self.deviation.to(v), _solve_lower)
        return self._by_blocks(white, lambda root, x: _solve_lower(root.mT, x, upper=True)) / self.deviation.to(v)

    def scale(self, white: Tensor) -> Tensor:
        return self._by_blocks(white, lambda root, x: root @ x) * self.deviation.to(white)

    def decorrelated(self, v: Tensor) -> Tensor:
        """S C^{-1/2} S^{-1} v: errors of it are independent, of the same standard deviations."""
        return self._by_blocks(v / self.deviation.to(v), _solve_lower) * self.deviation.to(v)

    def _by_blocks(self, v: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        rows = self.rows.to(v.device)
        there = rows >= 0
        parts = v[:, rows.clamp(min=0)] * there  # (batch, block, k)
        image = product(self.root.to(v), parts.unsqueeze(-1)).squeeze(-1)
        return torch.zeros_like(v).index_copy(1, rows[there], image[:, there])


def _solve_lower(root: Tensor, x: Tensor, upper: bool = False) -> Tensor:
    solution: Tensor = torch.linalg.solve_triangular(root, x, upper=upper)
    return solution


def conjugate_gradient(
    product: Product, b: Tensor, iterations: int, tolerance: float = 0.0, preconditioner: Product | None = None
) -> Tensor:
    """Solve A x = b for symmetric positive definite A, sample by sample.

    Args:
        product: A applied to (batch, n).
        b: shape (batch, n).
        iterations: products at most.
        tolerance: a sample keeps its solution once its residual is below this fraction of its right-hand side.
        preconditioner: an approximate inverse of A, symmetric positive definite, in whose norm residuals are then measured.
    """
    x, residual = torch.zeros_like(b), b
    turned = residual if preconditioner is None else preconditioner(residual)
    direction, rho = turned, (residual * turned).sum(dim=-1, keepdim=True)
    target = tolerance**2 * rho
    for _ in range(iterations):
        unsolved = ~(rho <= target)  # so that what is not finite stays visible
        if not bool(unsolved.any()):
            break
        image = product(direction)
        step = _ratio(rho, (direction * image).sum(dim=-1, keepdim=True)) * unsolved
        x, residual = x + step * direction, residual - step * image
        turned = residual if preconditioner is None else preconditioner(residual)
        previous, rho = rho, (residual * turned).sum(dim=-1, keepdim=True)
        direction = turned + _ratio(rho, previous) * direction
    return x


def weighted_gram(a: Tensor, weights: Tensor, block: int = 1024) -> Tensor:
    """A diag(w) Aᵀ for ``a`` (n, k) and ``weights`` (k,), shape (n, n): half the work of a product, for it is symmetric."""
    result = a.new_empty(len(a), len(a))
    for first in range(0, len(a), block):
        last = first + block
        rows = (a[first:last] * weights) @ a[:last].T
        result[first:last, :last] = rows
        result[:first, first:last] = rows[:, :first].T
    return result


def gmres(product: Product, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Minimise ‖b - A x‖ over the Krylov space of ``iterations`` products, sample by sample; A need not be symmetric.

    Arnoldi with modified Gram-Schmidt; a sample whose space closes early keeps its exact solution.

    Args:
        product: A applied to (batch, n), called once for each basis vector in order.
        b: shape (batch, n).
        iterations: size of the space.

    Returns:
        x, shape (batch, n), and its coefficients on the basis vectors given to ``product``, shape (batch, iterations): a
        caller who kept by-products of each call can combine them alike.

    Raises:
        FloatingPointError: if a product is not finite.
    """
    scale = b.norm(dim=-1, keepdim=True)
    basis = [_ratio(b, scale)]
    hessenberg = torch.zeros(len(b), iterations + 1, iterations, dtype=b.dtype, device=b.device)
    for k in range(iterations):
        w = product(basis[k])
        magnitude = w.norm(dim=-1)
        for j, q in enumerate(basis):
            overlap = (q * w).sum(dim=-1)
            hessenberg[:, j, k] = overlap
            w = w - overlap.unsqueeze(-1) * q
        length = w.norm(dim=-1)
        length = torch.where(length <= 8 * torch.finfo(b.dtype).eps * magnitude, 0.0, length)
        hessenberg[:, k + 1, k] = length
        basis.append(_ratio(w * (length > 0).unsqueeze(-1), length.unsqueeze(-1)))
    target = torch.zeros(len(b), iterations + 1, dtype=b.dtype, device=b.device)
    target[:, 0] = scale[:, 0]
    if not bool(torch.isfinite(hessenberg).all()):
        raise FloatingPointError("GMRES: a product is not finite, the likelihood or the denoiser has failed")
    coefficients = (torch.linalg.pinv(hessenberg) @ target.unsqueeze(-1)).squeeze(-1)
    return torch.einsum("kbn,bk->bn", torch.stack(basis[:iterations]), coefficients), coefficients


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Division in which nothing over nothing is nothing."""
    return numerator / torch.where(denominator == 0, 1.0, denominator)
