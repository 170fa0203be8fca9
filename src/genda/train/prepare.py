"""From a configuration to a run: read the data, fit climatology and base on the training split alone, build the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genda import parallel
from genda.checkpoint import build_denoiser, build_network
from genda.diffusion.denoiser import IsotropicGaussian
from genda.diffusion.gaussian import SphericalGaussian
from genda.diffusion.noise import derived_seed
from genda.grid import LatLonGrid
from genda.state import Normalisation, read_state
from genda.train.config import OptimiserConfig, TrainConfig
from genda.train.data import Fields, InMemory, OnDisk, condition_of, select_times, static_maps
from genda.train.optimisation import Muon, WeightAverage
from genda.train.run import Objective, Run
from genda.train.store import read_checkpoint, restore


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
    saved, metadata = read_checkpoint(config) if resume else (None, {})
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
        restore(run, saved, metadata)
    return run


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
