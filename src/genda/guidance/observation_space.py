r"""Kalman increments in observation space, directly where the covariance can be written out.

    dx = P Hᵀ (H P Hᵀ + R)^{-1} d

A sparse H touches few elements of the state. P between those alone gives H P Hᵀ as a matrix, whose Cholesky factor serves
any number of right-hand sides: for dense observations of small error, where conjugate gradients need hundreds of products
with P, this is exact and far cheaper. Where too many elements are touched, or H is not a matrix, conjugate gradients it is.

Reference: Courtier 1997, Q. J. R. Meteorol. Soc. 123, 2449 (the dual form).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from genda.guidance.gaussian import kalman_increment
from genda.observations.operators import Operator, tangent_matrix
from genda.problem import Source

DENSE = 20_000
"""Elements and observations at most for which a matrix is written out (3.2 GB in double precision)."""


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
