r"""Kalman increments in observation space, directly where the covariance can be written out.

    dx = P Hᵀ (H P Hᵀ + R)^{-1} d

A sparse H touches few elements of the state. P between those alone gives H P Hᵀ as a matrix, whose Cholesky factor serves
any number of right-hand sides: for dense observations of small error, where conjugate gradients need hundreds of products
with P, this is exact and far cheaper. Where too many elements are touched, or H is not a matrix, conjugate gradients it is.
A covariance that knows H P Hᵀ itself can have :func:`factor` and :func:`solved` without its elements.

Reference: Courtier 1997, Q. J. R. Meteorol. Soc. 123, 2449 (the dual form).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from genda.guidance.gaussian import kalman_increment
from genda.observations.operators import Operator, tangent_matrix
from genda.problem import Source

DENSE = 20_000
"""Elements and observations at most for which a matrix is written out (3.2 GB in double precision)."""

NEAR = 16.0
"""Ratio of noise levels up to which the factor of one serves at the other."""
PRODUCTS = 100
"""Enough for conjugate gradients to gain three digits where the condition number is that ratio's square."""


@runtime_checkable
class StateCovariance(Protocol):
    """A covariance P of states."""

    def covariance(self, x: Tensor) -> Tensor:
        """P x, (batch, channel, lat, lon) to the same."""
        ...

    def elements(self, index: Tensor) -> Tensor:
        """P between elements of the flattened state, (k,) to (k, k)."""
        ...


def increment(
    covariance: StateCovariance, source: Source, x: Tensor, misfit: Tensor, iterations: int, tolerance: float
) -> Tensor:
    """P Hᵀ (H P Hᵀ + R)^{-1} d, (batch, channel, lat, lon).

    Args:
        covariance: P.
        source: gives H and R; a nonlinear H is linearised at ``x``.
        x: shape (batch, channel, lat, lon).
        misfit: d, shape (batch, m).
        iterations, tolerance: of conjugate gradients, where they are needed.
    """
    used = touched(source.operator)
    if used is None:
        return kalman_increment(covariance.covariance, source, x, misfit, iterations, tolerance)
    rows = tangent_matrix(source.operator)[:, used]  # type: ignore[index]
    between = covariance.elements(torch.as_tensor(used)).double().numpy()
    u = solved(factor(torch.as_tensor(np.asarray(rows @ (rows @ between).T)), source), misfit)
    return covariance.covariance(source.adjoint(x, u))


def factor(observed: Tensor, source: Source) -> Tensor:
    """The Cholesky factor of H P Hᵀ + R, in double precision, for ``observed`` H P Hᵀ, (m, m) to the same.

    Raises:
        FloatingPointError: where round-off hides that it is positive definite.
    """
    matrix = observed.to(torch.float64, copy=True)
    matrix.diagonal().add_(source.covariance.variance.to(matrix))  # type: ignore[attr-defined]
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        found = "found H P Hᵀ + R not positive definite to round-off"
        raise FloatingPointError(f"{source.name}: {found}, expected larger observation errors or fewer observations")
    result: Tensor = lower
    return result


class FactorNearby:
    """An approximate (H C_t Hᵀ + R)^{-1} at one noise level after the other, C_t = σ² C (C + σ²)^{-1}.

    In no direction do the matrices of two levels differ by more than the square of the levels' ratio: the Cholesky factor of
    one level preconditions conjugate gradients at its neighbours, where making another would cost far more than they do.

    Args:
        observed: H C_t Hᵀ as a function of sigma, () to (m, m).
        source: gives R.
    """

    def __init__(self, observed: Callable[[Tensor], Tensor], source: Source) -> None:
        self._observed, self._source = observed, source
        self._level, self._lower = math.nan, torch.empty(0)

    def near(self, level: float) -> Callable[[Tensor], Tensor]:
        """By the factor there is, if it is of a level near enough; otherwise by one of this level, which takes its place.

        Raises:
            FloatingPointError: as :func:`factor`.
        """
        if not level / NEAR <= self._level <= level * NEAR:
            self._level, self._lower = math.nan, torch.empty(0)  # two at a time would not be needed
            self._lower = factor(self._observed(torch.tensor(level, dtype=torch.float64)), self._source).to(
                self._source.values
            )
            self._level = level
        return partial(solved, self._lower)


def solved(factor: Tensor, misfit: Tensor) -> Tensor:
    """(H P Hᵀ + R)^{-1} d by a Cholesky factor, (batch, m) to the same."""
    return torch.cholesky_solve(misfit.to(factor).T, factor).T.to(misfit)


def touched(operator: Operator) -> np.ndarray[tuple[int], np.dtype[np.intp]] | None:
    """Elements of the flattened state that H reads; None where it is no matrix, or for too many."""
    matrix = tangent_matrix(operator)
    if matrix is None or matrix.shape[0] > DENSE:
        return None
    used = np.unique(matrix.indices).astype(np.intp)
    return used if len(used) <= DENSE else None
