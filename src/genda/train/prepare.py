"""From a configuration to a run: the task with its data and fitted statistics, and the optimiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genda import parallel
from genda.train.autoencoder import AutoencoderTask
from genda.train.config import AutoencoderConfig, IncrementConfig, OptimiserConfig, PriorConfig, TrainConfig
from genda.train.increments import IncrementTask
from genda.train.optimisation import Muon, WeightAverage
from genda.train.prior import PriorTask
from genda.train.run import Run
from genda.train.store import read_checkpoint, restore
from genda.train.task import Task


def prepare(config: TrainConfig, resume: bool = False) -> Run:
    """Read the data, fit statistics on the training split alone, build network and optimiser.

    Raises:
        FileNotFoundError: where there is no data set.
        ValueError: where data, configuration or checkpoint do not fit together.
    """
    device = parallel.local_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if not config.data.path.exists():
        raise FileNotFoundError(f"{config.data.path}: no such data set (data.path)")
    saved, metadata = read_checkpoint(config) if resume else (None, {})
    task = _task(config, device, saved)
    average = WeightAverage(task.network.parameters(), config.optimiser.ema)
    run = Run(config, device, task, _optimiser(config.optimiser, task.network), average)
    if saved is not None:
        restore(run, saved, metadata)
    return run


def _task(config: TrainConfig, device: torch.device, saved: dict[str, Tensor] | None) -> Task:
    if isinstance(config, AutoencoderConfig):
        return AutoencoderTask(config, device, saved)
    if isinstance(config, IncrementConfig):
        return IncrementTask(config, device, saved)
    if isinstance(config, PriorConfig):
        return PriorTask(config, device, saved)
    raise TypeError(f"found {type(config).__name__}, expected the configuration of a task")


def _optimiser(config: OptimiserConfig, network: nn.Module) -> torch.optim.Optimizer:
    if config.kind == "adamw":
        return torch.optim.AdamW(network.parameters(), config.lr, config.betas, weight_decay=config.weight_decay)
    ends = {"stem", "head", "position", "analysis", "synthesis"}
    inner = {name for name, p in network.named_parameters() if p.ndim == 4 and not ends & set(name.split("."))}
    matrices = [p for name, p in network.named_parameters() if name in inner]
    if not matrices:
        raise ValueError("optimiser.kind: found muon for a network without inner convolutions, expected adamw")
    others = [p for name, p in network.named_parameters() if name not in inner]
    return Muon(matrices, others, config.lr, betas=config.betas, weight_decay=config.weight_decay)
