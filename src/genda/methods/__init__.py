"""Assimilation methods, one thin file per row of a comparison; all of them see only a :class:`genda.problem.Problem`."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genda.problem import Problem


class Method(Protocol):
    """Draws members of (or makes a best estimate of) p(x | x_b, y) in normalised units."""

    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        """Shape (members, channel, lat, lon); a deterministic method returns one member."""
        ...
