"""Where the time of a latent analysis goes: denoiser, decoder, and the rest, which is the optimiser.

    python benchmarks/latent_cost.py --model losda --density 0.02 --members 1 --members 8
    python benchmarks/latent_cost.py --size era5 --device cuda       # 69 channels at 128 x 256, untrained weights

Every method sees the same background, columns at random grid points and R; one warm-up, then the median of ``--repeats``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

from genda.assimilation import load
from genda.diffusion.increments import IncrementDenoiser
from genda.diffusion.sampler import Sampler
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.grid import LatLonGrid
from genda.latent_methods import latent_sampler, make_latent_method
from genda.latent_model import (
    AutoencoderModel,
    LatentModel,
    build_autoencoder,
    build_increment_network,
)
from genda.linalg import Diagonal
from genda.methods import Method
from genda.observations.networks import columns_table, random_columns
from genda.problem import Problem, Source
from genda.sources import point_operator
from genda.state import Normalisation
from genda.train import read_config


class Clock:
    """Seconds inside modules, and their calls."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds, self.calls, self._started = device, 0.0, 0, 0.0

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def on(self, module: nn.Module) -> Iterator[None]:
        hooks = [module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, *_: object) -> None:
        self._started = self.now()

    def _leave(self, *_: object) -> None:
        self.seconds += self.now() - self._started
        self.calls += 1


def untrained() -> LatentModel:
    """The configurations of the paper's size with fresh weights and a smooth Gaussian."""
    space, prior = read_config("configs/autoencoder-era5.yaml"), read_config("configs/losda-era5.yaml")
    grid, names = LatLonGrid.gaussian(128, 256), space.data.names
    autoencoder = build_autoencoder(space.autoencoder, len(names), grid).eval().requires_grad_(False)
    normalisation = Normalisation(torch.zeros(1, len(names), 1, 1), torch.ones(len(names)))
    ones = torch.ones(len(names))
    whole = AutoencoderModel(autoencoder, ones, normalisation, names, grid, space.autoencoder)
    latent, coarse = space.autoencoder.latent, grid.coarsened(space.autoencoder.patch)
    network = build_increment_network(prior.architecture, space.autoencoder, names, coarse.shape)
    count = prior.base.modes
    generator = torch.Generator().manual_seed(0)
    wavenumber = torch.arange(count) * (coarse.shape[1] // 2 - 1) // count
    modes = torch.randn(count, latent, coarse.shape[0], 2, generator=generator)
    for m in wavenumber.unique():
        own = wavenumber == m
        q = torch.linalg.qr(torch.view_as_complex(modes[own].contiguous()).flatten(1).T)[0].T
        modes[own] = torch.view_as_real(q.contiguous()).view(-1, latent, coarse.shape[0], 2)
    variance = 300.0 / (1 + torch.arange(count)).float() ** 0.8
    base = ZonalGaussian(modes, variance, wavenumber, torch.tensor(0.05), coarse.shape[1])
    denoiser = IncrementDenoiser(network, base).eval().requires_grad_(False)
    mean, scale = torch.zeros(1, latent, *coarse.shape), torch.full((1, latent, 1, 1), 0.2)
    static = torch.zeros(len(prior.architecture.static), *coarse.shape)
    floor = torch.full((1, len(names)), 1e-3)
    return LatentModel(whole, denoiser, mean, scale, static, floor, (24,), prior.architecture)


def problem(model: LatentModel, density: float, device: torch.device) -> Problem:
    """A background of noise, and columns that differ from it."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(model.channels), *model.grid.shape)
    background = torch.randn(shape, generator=generator)
    time_ = np.datetime64("2005-01-01", "ns")
    sites = random_columns(model.grid, density, np.random.default_rng(0))
    operator, _ = point_operator(model, columns_table(sites, model.channels, time_))
    values = operator(background.unsqueeze(0))[0] + 0.2 * torch.randn(len(operator), generator=generator)
    source = Source(values.to(device), operator, Diagonal(torch.full_like(values, 0.01).to(device)))
    condition = model.condition(np.array([time_]), model.leads[0])[0]
    return Problem(shape, (source,), background.to(device), condition=condition.to(device))


def measured(run: Callable[[], object], model: LatentModel, device: torch.device) -> dict[str, float]:
    """Seconds of one analysis: all, in the denoiser's network, in its Gaussian, in the decoder's network."""
    parts = {name: Clock(device) for name in ("network", "Gaussian", "decoder")}
    decoder = model.space.autoencoder.decoder or nn.Identity()
    clock = parts["network"]
    started = clock.now()
    with (
        parts["network"].on(model.denoiser.network),
        parts["Gaussian"].on(model.denoiser.base),
        parts["decoder"].on(decoder),
    ):
        run()
    total = clock.now() - started
    seconds = {"total": total} | {name: part.seconds for name, part in parts.items()}
    return seconds | {"rest": total - sum(part.seconds for part in parts.values())}


def main(
    model: str = "losda",
    size: Annotated[str, typer.Option(help="model, or era5: the paper's size with untrained weights.")] = "model",
    density: float = 0.02,
    members: Annotated[list[int], typer.Option()] = [1, 8],  # noqa: B006
    steps: int | None = None,
    repeats: int = 3,
    device: str = "cpu",
) -> None:
    """Print a Markdown table."""
    on = torch.device(device)
    whole = untrained() if size == "era5" else load(model)
    if not isinstance(whole, LatentModel):
        raise typer.BadParameter(f"{model}: found a prior of states, expected one of background errors")
    given = problem(whole, density, on)
    sampler = latent_sampler(**({} if steps is None else {"steps": steps}))
    rows: list[tuple[str, list[int], Sampler | None]] = [("latent-3d-var", [1], None), ("losda", members, sampler)]
    print(f"{len(given.stacked.values)} observations, {sampler.steps} steps, median of {repeats}\n")
    print("| method | members | seconds | a member | network | Gaussian | decoder | rest |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, counts, taken in rows:
        for count in counts:
            method = make_latent_method(name, whole, whole.leads[0], sampler=taken, device=device)

            def run(method: Method = method, count: int = count) -> None:
                method.analyse(given, count, torch.Generator().manual_seed(0))

            run()
            row = sorted((measured(run, whole, on) for _ in range(repeats)), key=lambda row: row["total"])[repeats // 2]
            shown = [f"{row[key]:.1f}" for key in ("network", "Gaussian", "decoder", "rest")]
            print(f"| {name} | {count} | {row['total']:.1f} | {row['total'] / count:.1f} | {' | '.join(shown)} |")


if __name__ == "__main__":
    typer.run(main)
