"""Training of any network: one readable loop.

Every draw is a function of (seed, position in the run): data order, noise levels, noise and dropout. A checkpoint
therefore needs weights, their average, optimiser moments and one number, and a resumed run computes the same bits on a
CPU as one never stopped. SIGTERM ends the run after the step in progress, with a checkpoint. The output directory holds

    config.yaml   the configuration in force
    log.jsonl     one JSON object a line: loss, learning rate, gradient norm, images/s; validation scores
    state.safetensors   the training checkpoint (nothing pickled)
    model/        the averaged network as a model directory, see :mod:`genda.checkpoint`

    genda train configs/embedded.yaml data.path=nature.zarr out=runs/embedded [--resume]
"""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
import yaml
from torch import Tensor, nn

from genda import parallel
from genda.checkpoint import write_atomically
from genda.diffusion.noise import derived_seed
from genda.train.config import TrainConfig
from genda.train.data import sample_order
from genda.train.optimisation import learning_rate_factor
from genda.train.prepare import prepare
from genda.train.run import Run, averaged
from genda.train.store import STATE, save, write_log
from genda.train.task import Batch

log = logging.getLogger(__name__)


def train(config: TrainConfig, resume: bool = False) -> Run:
    """Train until ``max_images``, ``max_minutes`` or SIGTERM; the run's files are in ``config.out``.

    Args:
        config: the run.
        resume: go on from ``config.out``, to the same bits on a CPU as a run never stopped.

    Raises:
        FileExistsError: where ``config.out`` holds a run and ``resume`` is False.
        FloatingPointError: naming the step at which the loss stopped being finite.
        ValueError: for bad data, configuration or checkpoint.
    """
    with parallel.processes(parallel.local_device(config.device)):
        if not resume and (config.out / STATE).exists():
            raise FileExistsError(
                f"{config.out}: holds a training run, expected --resume or another directory (out=...)"
            )
        run = prepare(config, resume)
        if parallel.rank() == 0:
            config.out.mkdir(parents=True, exist_ok=True)
            document = yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)
            write_atomically(config.out / "config.yaml", document.encode())
            parameters = sum(p.numel() for p in run.parameters)
            log.info("%d parameters, %d training samples, step %d", parameters, len(run.task.times), run.step)
        _loop(run)
        return run


def _loop(run: Run) -> None:
    config = run.config
    total_steps = math.ceil(config.max_images / config.batch)
    if config.compile:
        run.task.objective.compile()
    module = parallel.wrap(run.task.objective)
    before, started = run.seconds, time.monotonic()
    saved, measured, losses = started, _SpeedOf(run), []
    run.task.objective.train()
    with ThreadPoolExecutor(config.readers) as reader, _terminated() as terminated:
        ahead = deque(reader.submit(_batch, run, run.step + i) for i in range(config.readers))
        stop = run.step >= total_steps
        while not stop:
            batch = ahead.popleft().result()
            ahead.append(reader.submit(_batch, run, run.step + config.readers))
            loss, norm, rate = _step(run, module, batch)
            losses.append(loss)
            run.seconds = before + time.monotonic() - started
            out_of_time = config.max_minutes is not None and run.seconds > 60 * config.max_minutes
            stop = run.step >= total_steps or parallel.first_decides(out_of_time or terminated.is_set(), run.device)
            due = stop or parallel.first_decides(time.monotonic() - saved > 60 * config.checkpoint_minutes, run.device)
            if due or run.step % config.log_steps == 0:
                mean = float(parallel.mean(torch.stack(losses).mean()))
                if not math.isfinite(mean):
                    raise FloatingPointError(f"step {run.step}: the loss is not finite (learning rate {rate:.2g})")
            if stop or run.step % config.log_steps == 0:
                entry = {
                    "loss": mean,
                    "lr": rate,
                    "grad_norm": float(norm),
                    "images_per_s": measured.images_per_second(),
                }
                write_log(run, entry)
                losses, measured = [], _SpeedOf(run)
            check = stop or run.images % config.validation.every_images < config.batch
            if check and parallel.rank() == 0:
                with averaged(run), torch.no_grad():
                    write_log(run, {"validation": run.task.validate()})
            if due and parallel.rank() == 0:
                save(run)
            if check or due:
                parallel.barrier()
                measured = _SpeedOf(run)
            if due:
                saved = time.monotonic()
        for batch_ahead in ahead:
            batch_ahead.cancel()
    if terminated.is_set():
        log.info("SIGTERM: stopped at step %d of %d, --resume goes on", run.step, total_steps)


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of killing the process; only the main thread can be told of signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)


class _SpeedOf:
    """Images a second since this was made."""

    def __init__(self, run: Run) -> None:
        self._run, self._images, self._time = run, run.images, time.monotonic()

    def images_per_second(self) -> float:
        return round((self._run.images - self._images) / max(time.monotonic() - self._time, 1e-9), 2)


def _batch(run: Run, step: int) -> Batch:
    """This process's part of the global batch of a step."""
    config = run.config
    first = step * config.batch
    index = sample_order(first, config.batch, len(run.task.times), config.seed)
    mine = parallel.shard(range(config.batch))
    index = index[mine.start : mine.stop]  # type: ignore[attr-defined]
    return run.task.batch(index, [derived_seed(config.seed, "noise", first + j) for j in mine])


def _step(run: Run, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, float]:
    """One update; loss, gradient norm and learning rate."""
    config, device = run.config, run.device
    tensors = [None if part is None else part.to(device, non_blocking=True) for part in batch]
    rate = config.optimiser.lr * learning_rate_factor(
        run.images, config.max_images, config.optimiser.warmup_images, config.optimiser.decay
    )
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    with _dropout_draws(derived_seed(config.seed, "dropout", run.step, parallel.rank()), device):
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            loss = module(*tensors)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()
    norm = nn.utils.clip_grad_norm_(run.parameters, config.optimiser.clip)
    run.optimiser.step()
    run.step += 1
    run.average.update(run.parameters, run.step)
    return loss.detach(), norm, rate


@contextmanager
def _dropout_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout knows only torch's global generator: seed it for this step and give the caller's state back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
