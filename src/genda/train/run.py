"""What a training step touches: configuration, task, optimiser and weight average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from genda.train.config import TrainConfig
from genda.train.optimisation import WeightAverage
from genda.train.task import Task


@dataclass
class Run:
    """Everything a step touches."""

    config: TrainConfig
    device: torch.device
    task: Task
    optimiser: torch.optim.Optimizer
    average: WeightAverage
    step: int = 0
    seconds: float = 0.0

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.task.network.parameters())

    @property
    def images(self) -> int:
        return self.step * self.config.batch


@contextmanager
def averaged(run: Run) -> Iterator[None]:
    """The averaged weights in place of the newest, in evaluation mode, for a while."""
    run.average.swap(run.parameters)
    run.task.objective.eval()
    try:
        yield
    finally:
        run.task.objective.train()
        run.average.swap(run.parameters)
