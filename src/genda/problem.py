"""The assimilation problem between files and methods: p(x | x_b, y) ∝ p(x | x_b) N(y; H(x), R), in normalised units.

Every method sees observations only as a list of :class:`Source`; several sources are independent, and a weight lambda on a
source divides its error covariance by lambda (Eq. 14 of the multimodal paper).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import scipy.sparse as sp
import torch
from torch import Tensor

from genda.linalg import BlockDiagonal, Covariance, Diagonal
from genda.observations.operators import LinearOperator, Operator, stack


@dataclass(frozen=True)
class Turned:
    """An operator whose observations are decorrelated."""

    inner: Operator
    covariance: BlockDiagonal

    linear = False

    def __call__(self, x: Tensor) -> Tensor:
        return self.covariance.decorrelated(self.inner(x))

    def tangent(self, x: Tensor, dx: Tensor) -> Tensor:
        return self.covariance.decorrelated(self.inner.tangent(x, dx))

    @property
    def matrix(self) -> sp.csr_array:
        """Of a linear operator, sparse, (m, size of the state)."""
        blocks, size = self.covariance.rows, self.covariance.root.shape[-1]
        turn = torch.linalg.solve_triangular(
            self.covariance.root, torch.eye(size).to(self.covariance.root), upper=False
        )
        there = (blocks.unsqueeze(-1) >= 0) & (blocks.unsqueeze(-2) >= 0) & (turn != 0)
        row, column = blocks.unsqueeze(-1).expand_as(turn)[there], blocks.unsqueeze(-2).expand_as(turn)[there]
        deviation = self.covariance.deviation.double()
        values = turn[there].double() * deviation[row] / deviation[column]
        count = len(deviation)
        sparse = sp.csr_array((values.numpy(), (row.numpy(), column.numpy())), shape=(count, count))
        return sp.csr_array(sparse @ self.inner.matrix)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Source:
    """One source of observations.

    Attributes:
        values: y, shape (m,).
        operator: H.
        covariance: R.
        name: for messages and reports.
        weight: lambda, 1 for a source that is taken at its word.
    """

    values: Tensor
    operator: Operator
    covariance: Covariance
    name: str = "observations"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or not bool(torch.isfinite(self.values).all()):
            raise ValueError(f"{self.name}: expected a vector of finite observed values")
        errors = {Diagonal: "variance", BlockDiagonal: "deviation"}.get(type(self.covariance))
        if errors is not None and getattr(self.covariance, errors).shape != self.values.shape:
            found = f"found {len(getattr(self.covariance, errors))} error {errors}s for {len(self.values)} values"
            raise ValueError(f"{self.name}: {found}, expected one for each")
        if isinstance(self.operator, LinearOperator) and len(self.operator) != len(self.values):
            raise ValueError(
                f"{self.name}: found an operator of {len(self.operator)} rows for {len(self.values)} values, expected one for each"
            )
        if not self.weight > 0:
            raise ValueError(f"{self.name}: found weight {self.weight:g}, expected a positive number")

    @cached_property
    def independent(self) -> Source:
        """The same observations with independent errors: y and H turned by a root of the correlation within blocks.

        Likelihood, gain and χ² are those of the correlated errors; standard deviations, and so all that is tuned to the size
        of an error, stay what they are.

        Raises:
            ValueError: for a covariance of another kind.
        """
        if isinstance(self.covariance, Diagonal):
            return self
        if not isinstance(self.covariance, BlockDiagonal):
            found = f"found errors of {type(self.covariance).__name__}"
            raise ValueError(f"{self.name}: {found}, expected independent ones or blocks of correlated ones")
        turned = Turned(self.operator, self.covariance)
        operator: Operator = turned
        if isinstance(self.operator, LinearOperator):
            operator = LinearOperator(turned.matrix, self.operator.shape)
        values = self.covariance.decorrelated(self.values.unsqueeze(0))[0]
        return Source(values, operator, Diagonal(self.covariance.deviation**2), self.name, self.weight)

    def observed(self, x: Tensor) -> Tensor:
        """H(x) for states (batch, channel, lat, lon), shape (batch, m).

        Raises:
            ValueError: where a gradient is recorded that H does not pass on: nothing can be assimilated through it.
        """
        values = self.operator(x)
        if torch.is_grad_enabled() and x.requires_grad and not values.requires_grad:
            found = "found an operator without gradient"
            raise ValueError(f"{self.name}: {found}, expected torch functions of the state throughout")
        return values

    def misfit(self, x: Tensor) -> Tensor:
        """y - H(x) for states (batch, channel, lat, lon), shape (batch, m); raises as :meth:`observed`."""
        return self.values.to(x) - self.observed(x)

    def adjoint(self, x: Tensor, u: Tensor) -> Tensor:
        """H'(x)ᵀ u, ``u`` (batch, m) to (batch, channel, lat, lon)."""
        if self.operator.linear:
            return self.operator.adjoint(u)  # type: ignore[attr-defined, no-any-return]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self.observed(x), x, u)
        return pulled


@dataclass(frozen=True)
class Problem:
    """Background and observations of one analysis.

    Attributes:
        shape: (channel, lat, lon) of the state.
        sources: the observations; none gives the prior.
        background: x_b, shape (channel, lat, lon), or None where the prior stands alone.
        ensemble: members of the background, shape (member, channel, lat, lon), or None where there is but one.
        condition: what the prior is conditioned on besides (the season), shape (k,), or None.
        time: valid time, for the seeds of members.
        averaged: whether the background is a mean of members, calmer than any single forecast.
    """

    shape: tuple[int, int, int]
    sources: tuple[Source, ...] = ()
    background: Tensor | None = None
    ensemble: Tensor | None = None
    condition: Tensor | None = None
    time: datetime | str | None = field(default=None)
    averaged: bool = False

    def __post_init__(self) -> None:
        for source in self.sources:
            if isinstance(source.operator, LinearOperator) and source.operator.shape != self.shape:
                raise ValueError(f"{source.name}: found states of {source.operator.shape}, expected {self.shape}")
        for name, value, ndim in (("background", self.background, 3), ("ensemble", self.ensemble, 4)):
            if value is None:
                continue
            if value.ndim != ndim or tuple(value.shape[-3:]) != self.shape:
                raise ValueError(f"{name}: found a state of {tuple(value.shape)}, expected {self.shape}")
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name}: found a value that is not finite")

    @cached_property
    def stacked(self) -> Source:
        """All sources as one with independent errors (:attr:`Source.independent`), weights folded into their variances.

        Raises:
            ValueError: without sources.
        """
        if not self.sources:
            raise ValueError("problem: found no observations, expected at least one source")
        sources = [source.independent for source in self.sources]
        variances = [source.covariance.variance / source.weight for source in sources]  # type: ignore[attr-defined]
        return Source(
            torch.cat([s.values for s in sources]),
            stack([s.operator for s in sources]),
            Diagonal(torch.cat(variances)),
            "+".join(s.name for s in self.sources),
        )

    def first_guess(self, method: str) -> Tensor:
        """x_b, or the mean of the background's members, shape (channel, lat, lon).

        Raises:
            ValueError: naming the method, without either.
        """
        if self.background is not None:
            return self.background
        if self.ensemble is not None:
            return self.ensemble.mean(dim=0)
        raise ValueError(f"{method}: found no background, expected one")

    def background_members(self, method: str) -> Tensor:
        """Members of the background, shape (member, channel, lat, lon).

        Raises:
            ValueError: naming the method, with fewer than two.
        """
        found = 0 if self.ensemble is None else len(self.ensemble)
        if self.ensemble is None or found < 2:
            raise ValueError(f"{method}: found {found} background members, expected at least 2")
        return self.ensemble
