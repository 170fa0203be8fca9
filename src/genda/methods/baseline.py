"""What every method has to beat: the climatology, and the background left as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.problem import Problem


@dataclass(frozen=True)
class Climatology:
    """The climatological mean, whatever was observed.

    Attributes:
        mean: shape (channel, lat, lon).
    """

    mean: Tensor

    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        return self.mean.unsqueeze(0)


@dataclass(frozen=True)
class Persistence:
    """The background, or its members, left as they are."""

    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        return problem.first_guess("persistence").unsqueeze(0) if problem.ensemble is None else problem.ensemble
