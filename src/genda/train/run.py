"""What a training step touches: configuration, data, the loss as a module, optimiser and weight average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genda.diffusion.denoiser import PreconditionedDenoiser
from genda.diffusion.loss import denoising_loss
from genda.grid import LatLonGrid
from genda.state import Normalisation
from genda.train.config import TrainConfig
from genda.train.data import Fields
from genda.train.optimisation import WeightAverage


class Objective(nn.Module):
    """The loss as a module, so that it can be wrapped for several processes."""

    area_weights: Tensor

    def __init__(self, denoiser: PreconditionedDenoiser, area_weights: Tensor) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("area_weights", area_weights, persistent=False)

    def forward(self, x0: Tensor, sigma: Tensor, noise: Tensor, condition: Tensor | None) -> Tensor:
        """Mean loss of the batch, ()."""
        return denoising_loss(self.denoiser, x0, sigma, noise, condition, self.area_weights).mean()


@dataclass
class Run:
    """Everything a step touches."""

    config: TrainConfig
    device: torch.device
    train: Fields
    validation: tuple[Tensor, Tensor | None]
    objective: Objective
    normalisation: Normalisation
    grid: LatLonGrid
    optimiser: torch.optim.Optimizer
    average: WeightAverage
    step: int = 0
    seconds: float = 0.0

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.objective.denoiser.network.parameters())

    @property
    def images(self) -> int:
        return self.step * self.config.batch


@contextmanager
def averaged(run: Run) -> Iterator[PreconditionedDenoiser]:
    """The denoiser with the averaged weights, in evaluation mode, for a while."""
    denoiser = run.objective.denoiser
    run.average.swap(run.parameters)
    denoiser.eval()
    try:
        yield denoiser
    finally:
        denoiser.train()
        run.average.swap(run.parameters)
