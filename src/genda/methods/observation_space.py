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
from genda.observations.operators import LinearOperator, Operator
from genda.problem import Source

DENSE = 20_000
"""Elements and observations at most for which a matrix is written out (1.6 GB in single precision)."""


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
    rows = source.operator.matrix[:, used]  # type: ignore[attr-defined]
    between = covariance.elements(torch.as_tensor(used)).double().numpy()
    matrix = torch.as_tensor(np.asarray(rows @ (rows @ between).T))
    matrix.diagonal().add_(source.covariance.variance.double())  # type: ignore[attr-defined]
    u = torch.cholesky_solve(misfit.double().T, torch.linalg.cholesky(matrix)).T
    return covariance.covariance(source.adjoint(x, u.to(x)))


def touched(operator: Operator) -> np.ndarray[tuple[int], np.dtype[np.intp]] | None:
    """Elements of the flattened state that H reads; None where it is no matrix, or for too many."""
    if not isinstance(operator, LinearOperator) or len(operator) > DENSE:
        return None
    used = np.unique(operator.matrix.indices).astype(np.intp)
    return used if len(used) <= DENSE else None
