"""Devices, and data-parallel training: the only user of torch.distributed.

Started by ``torchrun``, every process holds the whole network and works on its slice of the global batch; started
plainly there is one process and every function here does nothing. Noise and data order are functions of the sample's
place in the global batch, so a run on any number of processes computes the same loss.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the process group that ``torchrun`` describes in the environment, and leave it at the end.

    Raises:
        ValueError: where the environment is torchrun's but incomplete.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not: expected to be started by torchrun")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def local_device(name: str) -> torch.device:
    """The device of this process: ``auto`` is this process's own GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    return torch.device(name)


def known_device(name: str) -> str:
    """The name of a device that this machine has.

    Raises:
        ValueError: for any other.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: found {name!r}, expected cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: found {name!r}, but this torch sees no CUDA device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: found {name!r}, but this torch sees {torch.cuda.device_count()} CUDA devices")
    return name


def _active() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Number of this process, 0 when alone."""
    return distributed.get_rank() if _active() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return distributed.get_world_size() if _active() else 1


def shard(batch: Sequence[T]) -> Sequence[T]:
    """This process's contiguous slice of a global batch.

    Raises:
        ValueError: where the batch doesn't divide evenly, which would weight samples unequally.
    """
    if len(batch) % world_size():
        raise ValueError(f"batch: found {len(batch)} samples for {world_size()} processes, expected a multiple")
    size = len(batch) // world_size()
    return batch[rank() * size : (rank() + 1) * size]


def wrap(module: nn.Module) -> nn.Module:
    """The module with its gradients averaged over processes; the module itself when alone."""
    return DistributedDataParallel(module, broadcast_buffers=False) if _active() else module


def mean(value: Tensor) -> Tensor:
    """Mean of a detached tensor over processes."""
    if not _active():
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / world_size()


def first_decides(flag: bool, device: torch.device) -> bool:
    """The first process's flag in every process, so that all stop or save at the same step whatever their clocks say."""
    if not _active():
        return flag
    shared = torch.tensor(int(flag), device=device)
    distributed.broadcast(shared, src=0)
    return bool(shared.item())


def barrier() -> None:
    """Wait for every process."""
    if _active():
        distributed.barrier()
