r"""3D-Var and strong-constraint 4D-Var: the mode of p(x | x_b, y), in a control variable.

With B = L Lᵀ and x = x_b + L v,

    J(v) = ½ ‖v‖² + ½ (y - H(x_b + L v))ᵀ R^{-1} (y - H(x_b + L v))

minimised by Gauss–Newton: the operators are linearised about the last x and each quadratic problem is solved by conjugate
gradients on I + Lᵀ H'ᵀ R^{-1} H' L, which is well conditioned; a control vector no longer than the iterations allowed is solved
for directly, with all rows or columns of H' L, whichever are fewer, in one batch. An operator that contains a forecast
(:class:`genda.observations.operators.Composed`) makes it 4D-Var: the initial state of the window is then what is sought, and
automatic differentiation is the adjoint model.

References:
    Courtier et al. 1994, Q. J. R. Meteorol. Soc. 120, 1367 (incremental form); Lorenc 2003, 129, 3167.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from genda.guidance.observation_space import StateCovariance, increment, touched
from genda.linalg import conjugate_gradient
from genda.problem import Problem, Source


class Root(Protocol):
    """L of a background covariance B = L Lᵀ."""

    @property
    def size(self) -> int:
        """Length of the control vector."""
        ...

    def apply(self, v: Tensor) -> Tensor:
        """L v, (batch, size) to (batch, channel, lat, lon)."""
        ...

    def transpose(self, x: Tensor) -> Tensor:
        """Lᵀ x, (batch, channel, lat, lon) to (batch, size)."""
        ...


@dataclass(frozen=True)
class Variational:
    """The method; deterministic.

    Attributes:
        root: of the background covariance.
        outer: Gauss–Newton iterations; one suffices for linear operators.
        inner: conjugate-gradient iterations of each, at most; a direct solution where there are no more controls.
        tolerance: relative residual at which they stop.
    """

    root: Root
    outer: int = 1
    inner: int = 100
    tolerance: float = 1e-6

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        background = problem.first_guess("variational").unsqueeze(0)
        if not problem.sources:
            return background
        source = problem.stacked
        if isinstance(self.root, StateCovariance) and touched(source.operator) is not None:
            misfit = source.misfit(background)
            return background + increment(self.root, source, background, misfit, self.inner, self.tolerance)
        v = background.new_zeros(1, self.root.size)
        x = background
        newton = self._direct_step if self.root.size <= self.inner else self._krylov_step
        for _ in range(self.outer):
            v = v + newton(source, x, v)
            x = background + self.root.apply(v)
        return x

    def _krylov_step(self, source: Source, x: Tensor, v: Tensor) -> Tensor:
        """The minimiser of the quadratic problem about x, less v; shape (1, size)."""

        def curvature(w: Tensor) -> Tensor:
            image = source.operator.tangent(x, self.root.apply(w))
            return w + self.root.transpose(source.adjoint(x, source.covariance.inverse(image)))

        pull = self.root.transpose(source.adjoint(x, source.covariance.inverse(source.misfit(x))))
        return conjugate_gradient(curvature, pull - v, self.inner, self.tolerance)

    def _direct_step(self, source: Source, x: Tensor, v: Tensor) -> Tensor:
        """The same with H' L written out: from its rows by the adjoint or, where they are fewer, its columns."""
        unit, each = torch.eye(self.root.size).to(v), torch.eye(len(source.values)).to(v)
        if len(each) <= len(unit):
            images = self.root.transpose(source.adjoint(x.expand(len(each), -1, -1, -1), each)).T
        else:
            images = source.operator.tangent(x.expand(len(unit), -1, -1, -1), self.root.apply(unit))
        scaled = source.covariance.inverse(images)
        pull = source.misfit(x) @ scaled.T - v
        step: Tensor = torch.linalg.solve(unit + images @ scaled.T, pull.T).T
        return step


@dataclass(frozen=True)
class DenseRoot:
    """L as a matrix, for states small enough to hold one.

    Attributes:
        matrix: shape (channel * lat * lon, size).
        shape: (channel, lat, lon).
    """

    matrix: Tensor
    shape: tuple[int, int, int]

    @staticmethod
    def of(covariance: Tensor, shape: tuple[int, int, int]) -> DenseRoot:
        """The symmetric root of a covariance (n, n).

        Raises:
            ValueError: for a matrix that is no covariance, beyond round-off.
        """
        values, vectors = torch.linalg.eigh(covariance)
        if float(values.min()) < -1e-4 * float(values.abs().max()):
            raise ValueError(f"covariance: found an eigenvalue of {float(values.min()):g}, expected none below zero")
        return DenseRoot((vectors * values.clamp(min=0).sqrt()) @ vectors.T, shape)

    @property
    def size(self) -> int:
        return self.matrix.shape[1]

    def apply(self, v: Tensor) -> Tensor:
        return (v @ self.matrix.T.to(v)).view(-1, *self.shape)

    def transpose(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.to(x)

    def covariance(self, x: Tensor) -> Tensor:
        """B x for states (batch, channel, lat, lon)."""
        return self.apply(self.transpose(x))

    def elements(self, index: Tensor) -> Tensor:
        """B between elements of the flattened state, (k,) to (k, k)."""
        rows = self.matrix[index]
        return rows @ rows.T
