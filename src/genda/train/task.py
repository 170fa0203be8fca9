"""What the training loop asks of a thing to train: data by index, a loss, a judgement and a model directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from genda.files import Times
from genda.state import Normalisation

Batch = tuple[Tensor | None, ...]
"""What a task's objective takes, each of shape (batch, ...)."""


class Task(Protocol):
    """A network to train.

    Attributes:
        objective: module whose ``forward(*batch)`` is the mean loss; its state is what a checkpoint holds.
        network: the part of it that learns.
        normalisation: of the states it is trained on.
        times: of the training samples, in the order of their index.
    """

    @property
    def objective(self) -> nn.Module: ...

    @property
    def network(self) -> nn.Module: ...

    @property
    def normalisation(self) -> Normalisation: ...

    @property
    def times(self) -> Times: ...

    def batch(self, index: NDArray[np.int64], seeds: Sequence[int]) -> Batch:
        """Samples and all random numbers of a step; a seed for each sample."""
        ...

    def validate(self) -> dict[str, Any]:
        """Scores of the network as it is, on validation data; those of type float are shown in the log."""
        ...

    def save_model(self, directory: Path, card: dict[str, Any]) -> None:
        """Write the model directory."""
        ...
