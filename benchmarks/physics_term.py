"""Share of a training step that the physics term takes, in time and in memory.

    python benchmarks/physics_term.py configs/phyda.yaml data.path=nature.zarr

The same batch with the term and without it, turn about; medians of forward and backward passes. Memory is what autograd keeps
for the backward pass, counted tensor by tensor.
"""

from __future__ import annotations

import statistics
import time
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from genda.train import read_config
from genda.train.increment_objective import IncrementObjective
from genda.train.prepare import prepare
from genda.train.task import Batch


def seconds(objective: nn.Module, batch: Batch) -> float:
    """Of one forward and backward pass, on the CPU."""
    started = time.perf_counter()
    objective(*batch).backward()
    return time.perf_counter() - started


def kept(objective: nn.Module, batch: Batch) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once."""
    sizes: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        objective(*batch).backward()
    return sum(sizes.values())


def main(config: str, overrides: Annotated[list[str] | None, typer.Argument()] = None, repeats: int = 7) -> None:
    """Print a line for the term."""
    run = prepare(read_config(config, [*(overrides or []), "device=cpu", "bfloat16=false"]))
    objective = run.task.objective
    if not isinstance(objective, IncrementObjective) or objective.physics is None:
        raise typer.BadParameter(f"{config}: found no physics term, expected one (physics: …)")
    index = np.arange(run.config.batch)
    batch = run.task.batch(index, [int(i) for i in index])
    term, times, memory = objective.physics, dict[bool, list[float]](), dict[bool, int]()
    for _ in range(repeats):
        for shown in (True, False):
            objective.physics = term if shown else None
            times.setdefault(shown, []).append(seconds(objective, batch))
            memory[shown] = kept(objective, batch)
    whole, rest = (statistics.median(times[shown]) for shown in (True, False))
    print(f"step {whole:.3f} s, without the term {rest:.3f} s: {1 - rest / whole:.0%} of the step")
    print(f"kept for the backward pass {memory[True] / 1e6:.0f} MB, without the term {memory[False] / 1e6:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
