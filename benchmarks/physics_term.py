"""Share of a training step that the physics term takes, in time and in memory.

    python benchmarks/physics_term.py configs/phyda.yaml data.path=nature.zarr

The same batch with the term and without it, turn about; medians of forward and backward passes. A step draws its batch besides,
which includes the analyses of simulated columns where increments are about them. Memory is what autograd keeps for the backward
pass, counted tensor by tensor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from genda.train import read_config
from genda.train.increment_objective import IncrementObjective
from genda.train.prepare import prepare
from genda.train.task import Batch


def seconds(work: Callable[[], object]) -> float:
    """Wall time of some work on the CPU, in seconds."""
    started = time.perf_counter()
    work()
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
    batch = run.task.batch(index, index.tolist())
    term, memory = objective.physics, dict[bool, int]()
    times: dict[bool, list[float]] = {True: [], False: []}
    drawing = []
    for repeat in range(repeats):
        drawing.append(seconds(partial(run.task.batch, index, (repeat * len(index) + index).tolist())))
        for shown in times:
            objective.physics = term if shown else None
            times[shown].append(seconds(lambda: objective(*batch).backward()))
            memory[shown] = kept(objective, batch)
    passes, rest, drawn = map(statistics.median, (times[True], times[False], drawing))
    print(f"passes {passes:.3f} s, without the term {rest:.3f} s; drawing the batch {drawn:.3f} s")
    print(f"the term takes {1 - rest / passes:.0%} of the passes, {(passes - rest) / (passes + drawn):.0%} of the step")
    print(f"kept for the backward pass {memory[True] / 1e6:.0f} MB, without the term {memory[False] / 1e6:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
