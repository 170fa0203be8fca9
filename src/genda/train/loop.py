"""Training of a diffusion prior: one readable loop.

Every draw is a function of (seed, position in the run): data order, noise levels, noise and dropout. A checkpoint
therefore needs weights, their average, optimiser moments and one number, and a resumed run computes the same bits on a
CPU as one never stopped. The output directory holds

    config.yaml   the configuration in force
    log.jsonl     one JSON object a line: loss, learning rate, gradient norm, images/s; validation error by noise level
    state.safetensors   the training checkpoint (nothing pickled)
    model/        the averaged network as a model directory, see :mod:`genda.checkpoint`

    python -m genda.train configs/embedded.yaml data.path=nature.zarr out=runs/embedded [--resume]
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from genda import parallel
from genda.checkpoint import (
    Model,
    build_denoiser,
    build_network,
    check_tensors,
    pack,
    read_tensors,
    save_model,
    write_atomically,
)
from genda.diffusion.denoiser import IsotropicGaussian, PreconditionedDenoiser
from genda.diffusion.gaussian import SphericalGaussian
from genda.diffusion.loss import denoising_loss, draw_noise, error_by_noise_level
from genda.diffusion.noise import derived_seed
from genda.grid import LatLonGrid
from genda.state import Normalisation, read_state
from genda.train.config import MAY_CHANGE, OptimiserConfig, TrainConfig
from genda.train.data import Fields, InMemory, OnDisk, condition_of, sample_order, select_times, static_maps
from genda.train.optimisation import Muon, WeightAverage, learning_rate_factor

log = logging.getLogger(__name__)
STATE, LOG = "state.safetensors", "log.jsonl"


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


def prepare(config: TrainConfig, resume: bool = False) -> Run:
    """Read the data, fit normalisation and base on the training split alone, build network and optimiser.

    Raises:
        ValueError: where data, configuration or checkpoint do not fit together.
    """
    device = parallel.local_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    names, path = config.data.names, config.data.path
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such data set (data.path)")
    saved, metadata = _read_state_file(config) if resume else (None, {})
    times = select_times(path, config.data.train)
    fit_times = (
        times if config.data.storage != "disk" else select_times(path, config.data.train, config.data.fit_samples)
    )
    fitting = read_state(path, names, fit_times) if config.data.storage != "disk" or saved is None else None
    grid = fitting.grid if fitting else read_state(path, names, times[:1]).grid
    if saved is not None:
        normalisation = Normalisation(saved["normalisation.mean"], saved["normalisation.std"])
    elif fitting is not None:
        normalisation = Normalisation.fit(fitting, config.data.harmonics)
    train: Fields
    if config.data.storage == "disk":
        train = OnDisk(path, names, times, normalisation)
        anomalies = None if fitting is None else normalisation.normalise(fitting.values, fitting.times)
    elif fitting is not None:
        train = InMemory(fitting, normalisation, getattr(torch, config.data.storage))
        anomalies = train.values
    base = _base(config, grid, anomalies, saved)
    static = static_maps(path, config.architecture.static, grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "weights"))
        network = build_network(config.architecture, len(names), grid)
    denoiser = build_denoiser(config.architecture, network, base, static).to(device)
    objective = Objective(denoiser, torch.as_tensor(grid.area_weights).float().to(device))
    run = Run(
        config, device, train, _validation_set(config, normalisation, device), objective, normalisation, grid,
        _optimiser(config.optimiser, network), WeightAverage(network.parameters(), config.optimiser.ema),
    )  # fmt: skip
    if saved is not None:
        _restore(run, saved, metadata)
    return run


def train(config: TrainConfig, resume: bool = False) -> Run:
    """Train until ``max_images`` or ``max_minutes``; the run's files are in ``config.out``.

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
            log.info("%d parameters, %d training states, step %d", parameters, len(run.train.times), run.step)
        _loop(run)
        return run


def _loop(run: Run) -> None:
    config = run.config
    total_steps = math.ceil(config.max_images / config.batch)
    if config.compile:
        run.objective.compile()
    module = parallel.wrap(run.objective)
    resumed_at, started, saved_at, seen = run.seconds, time.monotonic(), time.monotonic(), []
    marked_at, marked_step = time.monotonic(), run.step
    run.objective.train()
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(_batch, run, run.step)
        stop = run.step >= total_steps
        while not stop:
            x0, condition, seeds = ahead.result()
            ahead = reader.submit(_batch, run, run.step + 1)
            loss, norm, rate = _step(run, module, x0, condition, seeds)
            seen.append(loss)
            now = time.monotonic()
            run.seconds = resumed_at + now - started
            out_of_time = config.max_minutes is not None and run.seconds > 60 * config.max_minutes
            stop = run.step >= total_steps or parallel.first_decides(out_of_time, run.device)
            if run.step % config.log_steps == 0 or stop:
                mean_loss = float(parallel.mean(torch.stack(seen).mean()))
                if not math.isfinite(mean_loss):
                    raise FloatingPointError(f"step {run.step}: the loss is not finite (learning rate {rate:.2g})")
                speed = (run.step - marked_step) * config.batch / max(now - marked_at, 1e-9)
                _write_log(
                    run, {"loss": mean_loss, "lr": rate, "grad_norm": float(norm), "images_per_s": round(speed, 2)}
                )
                marked_at, marked_step, seen = now, run.step, []
            if (
                stop
                or run.images // config.validation.every_images
                > (run.images - config.batch) // config.validation.every_images
            ):
                if parallel.rank() == 0:
                    _write_log(run, {"validation": validate(run)})
                marked_at, marked_step = time.monotonic(), run.step
            due = time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            if stop or parallel.first_decides(due, run.device):
                if parallel.rank() == 0:
                    save(run)
                saved_at = marked_at = time.monotonic()
                marked_step = run.step
                parallel.barrier()
        ahead.cancel()


def _batch(run: Run, step: int) -> tuple[Tensor, Tensor | None, list[int]]:
    """This process's part of the global batch of a step, and the seeds of its noise."""
    config = run.config
    first = step * config.batch
    index = sample_order(first, config.batch, len(run.train.times), config.seed)
    mine = parallel.shard(range(config.batch))
    index = index[mine.start : mine.stop]  # type: ignore[attr-defined]
    condition = condition_of(config.architecture.condition, run.train.times[index])
    return run.train[index], condition, [derived_seed(config.seed, "noise", first + j) for j in mine]


def _step(
    run: Run, module: nn.Module, x0: Tensor, condition: Tensor | None, seeds: list[int]
) -> tuple[Tensor, Tensor, float]:
    """One update; loss, gradient norm and learning rate."""
    config, device = run.config, run.device
    sigma, noise = draw_noise(x0.shape[1:], seeds, config.noise.p_mean, config.noise.p_std)
    x0, sigma, noise = (v.to(device, non_blocking=True) for v in (x0, sigma, noise))
    rate = config.optimiser.lr * learning_rate_factor(
        run.images, config.max_images, config.optimiser.warmup_images, config.optimiser.decay
    )
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    with _dropout_draws(derived_seed(config.seed, "dropout", run.step, parallel.rank()), device):
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            loss = module(x0, sigma, noise, None if condition is None else condition.to(device))
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


def validate(run: Run) -> dict[str, Any]:
    """Denoising error of the averaged network by noise level, its mean over channels, and the ratio to the base's own."""
    x0, condition = run.validation
    denoiser, sigmas = run.objective.denoiser, run.config.validation.sigmas
    with averaged(run):
        errors = error_by_noise_level(denoiser, x0, condition, run.objective.area_weights, sigmas)
    base_std: Tensor = denoiser.base.error_std(torch.tensor(sigmas, device=run.device))  # type: ignore[operator]
    base = base_std.flatten(1).square().double()
    return {
        "sigma": list(sigmas),
        "error": [round(float(e), 6) for e in errors.mean(dim=1)],
        "ratio_to_base": round(float((errors / base).mean()), 5),
        "channels": {name: [round(float(e), 6) for e in errors[:, i]] for i, name in enumerate(run.config.data.names)},
    }


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


def save(run: Run) -> None:
    """Write the training checkpoint and the model directory, each file whole or not at all."""
    config = run.config
    denoiser = run.objective.denoiser
    tensors = {f"denoiser.{name}": value for name, value in denoiser.state_dict().items()}
    tensors |= {f"average.{i}": value for i, value in enumerate(run.average.average)}
    for i, parameter in enumerate(run.parameters):
        tensors |= {f"optimiser.{i}.{name}": value for name, value in run.optimiser.state[parameter].items()}
    tensors |= {"normalisation.mean": run.normalisation.mean, "normalisation.std": run.normalisation.std}
    metadata = {"step": run.step, "seconds": run.seconds, "config": json.loads(config.model_dump_json())}
    write_atomically(config.out / STATE, pack(tensors, metadata))
    checks = [entry["validation"] for entry in _read_log(config.out / LOG) if "validation" in entry]
    card = {
        "data": config.data.path.name,
        "training_states": len(run.train.times),
        "first_time": str(run.train.times.min()),
        "last_time": str(run.train.times.max()),
        "seed": config.seed,
        "images": run.images,
        "minutes": round(run.seconds / 60, 1),
        "validation": {k: checks[-1][k] for k in ("sigma", "error", "ratio_to_base")} if checks else None,
        "config": json.loads(config.model_dump_json()),
    }
    with averaged(run) as denoiser:
        model = Model(denoiser, run.normalisation, config.data.names, run.grid, config.architecture, card)
        save_model(config.out / "model", model)


def _read_state_file(config: TrainConfig) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of the checkpoint, once its configuration is known to be this one's."""
    path = config.out / STATE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a training checkpoint to resume from")
    tensors, metadata = read_tensors(path)
    try:
        document = {key: json.loads(metadata[key]) for key in ("step", "seconds", "config")}
        saved = TrainConfig.model_validate_json(metadata["config"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected a genda training checkpoint, found other metadata ({error})") from error
    for key in TrainConfig.model_fields:
        found, wanted = getattr(saved, key), getattr(config, key)
        if found != wanted and key not in MAY_CHANGE:
            raise ValueError(
                f"{path}: {key}: found {found!r:.200}, expected {wanted!r:.200}; a resumed run keeps its {key}"
            )
        if found != wanted:
            log.warning("resuming with %s changed from %s to %s", key, found, wanted)
    return tensors, document


def _restore(run: Run, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    path, denoiser = run.config.out / STATE, run.objective.denoiser
    run.step, run.seconds = int(metadata["step"]), float(metadata["seconds"])
    expected = {f"denoiser.{name}": tuple(value.shape) for name, value in denoiser.state_dict().items()}
    expected |= {f"average.{i}": tuple(value.shape) for i, value in enumerate(run.average.average)}
    expected |= {f"normalisation.{name}": tuple(getattr(run.normalisation, name).shape) for name in ("mean", "std")}
    check_tensors(path, {k: v for k, v in tensors.items() if not k.startswith("optimiser.")}, expected)
    weights = {k.removeprefix("denoiser."): v for k, v in tensors.items() if k.startswith("denoiser.")}
    denoiser.load_state_dict(weights, strict=True)
    for i, average in enumerate(run.average.average):
        average.copy_(tensors[f"average.{i}"])
    for i, parameter in enumerate(run.parameters):
        prefix = f"optimiser.{i}."
        moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if moments:
            run.optimiser.state[parameter] = {k: v if k == "step" else v.to(parameter) for k, v in moments.items()}
    if parallel.rank() == 0:  # lines written after the checkpoint are about to be written again
        kept = [json.dumps(entry) + "\n" for entry in _read_log(run.config.out / LOG) if entry["step"] <= run.step]
        write_atomically(run.config.out / LOG, "".join(kept).encode())


def _base(
    config: TrainConfig, grid: LatLonGrid, anomalies: Tensor | None, saved: dict[str, Tensor] | None
) -> nn.Module:
    if config.architecture.base.kind == "isotropic":
        return IsotropicGaussian(config.architecture.base.sigma_data)
    if saved is not None:
        return SphericalGaussian(
            grid, *(saved[f"denoiser.base.{name}"] for name in ("covariance", "remainder", "error"))
        )
    if anomalies is None:
        raise ValueError("base: found no anomalies to fit it to")
    return SphericalGaussian.fit(anomalies, grid, config.seed)


def _validation_set(
    config: TrainConfig, normalisation: Normalisation, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    times = select_times(config.data.path, config.data.validation, config.validation.samples)
    state = read_state(config.data.path, config.data.names, times)
    condition = condition_of(config.architecture.condition, times)
    x0 = normalisation.normalise(state.values, times).to(device)
    return x0, None if condition is None else condition.to(device)


def _optimiser(config: OptimiserConfig, network: nn.Module) -> torch.optim.Optimizer:
    if config.kind == "adamw":
        return torch.optim.AdamW(network.parameters(), config.lr, config.betas, weight_decay=config.weight_decay)
    inner = {
        name
        for name, p in network.named_parameters()
        if p.ndim == 4 and not name.startswith(("stem", "head", "position"))
    }
    matrices = [p for name, p in network.named_parameters() if name in inner]
    others = [p for name, p in network.named_parameters() if name not in inner]
    return Muon(matrices, others, config.lr, betas=config.betas, weight_decay=config.weight_decay)


def _write_log(run: Run, values: dict[str, Any]) -> None:
    if parallel.rank():
        return
    entry = {"step": run.step, "images": run.images, "seconds": round(run.seconds, 1), **values}
    with (run.config.out / LOG).open("a") as file:
        file.write(json.dumps(entry) + "\n")
    if "validation" in values:
        check = values["validation"]
        bands = " ".join(f"{s:g}:{e:.4f}" for s, e in zip(check["sigma"], check["error"], strict=True))
        log.info("%d images: error by sigma %s, %.3f of the base's", run.images, bands, check["ratio_to_base"])
    else:
        log.info("%d images: %s", run.images, " ".join(f"{k} {v:.4g}" for k, v in values.items()))


def _read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
