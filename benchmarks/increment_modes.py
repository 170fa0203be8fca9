"""How many modes the Gaussian of a prior of background errors needs: LO-SDA with it alone, and with the network on top.

    python benchmarks/increment_modes.py configs/diffda.yaml diffda --data nature.zarr --modes 2800 --modes 5900 --modes 9000

The Gaussian is fitted anew to the training backgrounds that the data hold; the network is the model's, trained on a Gaussian of as
many modes as the model has. Validation dates and observations are those of a suite with ``split: validation``.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from genda.benchmark.experiment import experiment_of
from genda.benchmark.latent import LatentSpec
from genda.benchmark.suite import read_suite
from genda.benchmark.twin import TwinExperiment
from genda.benchmark.twin_suite import TwinMethodSpec
from genda.diffusion.increments import IncrementDenoiser
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.latent_model import LatentModel, load_latent_model, save_latent_model
from genda.methods.zonal_covariance import ZonalCovariance
from genda.train import read_config
from genda.train.config import IncrementConfig
from genda.train.latents import Latents
from genda.train.pairs import read_pairs


def covariance_of(config: IncrementConfig, model: LatentModel) -> ZonalCovariance:
    """That of the training backgrounds' errors in the model's latent, in the model's units."""
    pairs = read_pairs(config.data, config.data.train, model.normalisation)
    if pairs is None:
        raise typer.BadParameter(f"{config.data.path}: found no training backgrounds")
    grid = model.grid.coarsened(model.space.spec.patch)
    latents = Latents.of(model.space, pairs, range(model.space.spec.patch))
    latents.scale(*latents.statistics(model.space, torch.as_tensor(grid.area_weights).float()))
    return ZonalCovariance.fit(latents.truth.float(), grid, config.base.radius)


def errors(experiment: TwinExperiment, row: TwinMethodSpec, scenario: str) -> np.ndarray:
    """Normalised MSE of a row by date."""
    squares = [experiment.run(row, scenario, case).values["squared_error"] for case in experiment.cases]
    return np.mean(np.array(squares) / experiment.std**2, axis=(1, 2))


def main(
    configuration: str,
    name: str,
    data: Annotated[Path, typer.Option()],
    modes: Annotated[list[int], typer.Option()],
    suite: str = "benchmarks/search/losda-ensemble.yaml",
    scenario: str = "5 % noise-free",
    members: int = 4,
) -> None:
    """Print a Markdown table of normalised MSE over the background's, mean over the suite's dates."""
    config, model = read_config(configuration, [f"data.path={data}"]), load_latent_model(name)
    if not isinstance(config, IncrementConfig):
        raise typer.BadParameter(f"{configuration}: found another kind, expected increments")
    chosen = read_suite(suite, methods=["background"], scenarios=[scenario])
    experiment = experiment_of(chosen.model_copy(update={"members": members}), data)
    assert isinstance(experiment, TwinExperiment)
    covariance = covariance_of(config, model)
    background = errors(experiment, chosen.methods["background"], scenario)
    silent = copy.deepcopy(model.denoiser.network)
    for parameter in silent.parameters():
        parameter.zero_()
    print(f"{name}, {scenario}, {len(experiment.cases)} dates, {members} members\n")
    print("| modes | without the network | with it |\n|---|---:|---:|")
    for count in modes:
        base = ZonalGaussian.truncated(list(covariance.spectra), covariance.shape, count)
        ratios = []
        for network in (silent, model.denoiser.network):
            denoiser = IncrementDenoiser(network, base, model.denoiser.sees_base)
            with tempfile.TemporaryDirectory() as folder:
                save_latent_model(Path(folder), replace(model, denoiser=denoiser))
                found = errors(experiment, LatentSpec(method="losda", model=folder), scenario)
            ratios.append(f"{np.mean(found / background):.3f}")
        print(f"| {count:,} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
