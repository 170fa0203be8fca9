"""The posterior of a window of Lorenz-63 states: guided diffusion and Kalman smoothers against millions of particles.

    python benchmarks/lorenz63_posterior.py train                 the prior, about 15 minutes on one core
    python benchmarks/lorenz63_posterior.py search --log FILE     settings of every method, on validation cases
    python benchmarks/lorenz63_posterior.py compare --out FILE    the table and the figure, on test cases

The state is the window itself, three channels by 16 times an interval of 0.1 apart, in units of the climate. As the model is
deterministic, a window is its initial state, and importance weights on stationary trajectories give its posterior to any
precision. The prior is an EDM denoiser trained on such trajectories; it never sees the model. Everything is kept in ``--work`` and
a command that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genda.atomic import replacing
from genda.diffusion.denoiser import Denoiser, PreconditionedDenoiser
from genda.diffusion.gaussian import DenseGaussian
from genda.diffusion.loss import denoising_loss
from genda.diffusion.noise import derived_seed
from genda.diffusion.sampler import Sampler
from genda.forecast import ForecastModel
from genda.forecast.lorenz import Lorenz63
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.linalg import Diagonal
from genda.methods import Method
from genda.methods.ensemble_kalman import EnKF
from genda.methods.fusion import Fusion, Guidance
from genda.methods.particle import ParticleFilter, systematic_resampling
from genda.observations.operators import LinearOperator
from genda.problem import Problem, Source
from genda.report.style import ANALYSIS_COLOUR, BASELINE_COLOURS, finish, new_figure, style
from genda.train.optimisation import WeightAverage, learning_rate_factor
from genda.verify import energy_distance, sliced_wasserstein

TIMES, INTERVAL = 16, 0.1
SHAPE = (3, 1, TIMES)
MEMBERS = 256
MIDDLE = TIMES // 2
NOISE = 0.25
"""Standard deviation of observation errors in units of the climate: 2 in those of the model for x."""
CASES = 16
DRAWS = 1024
"""Draws of the reference that an ensemble is compared with."""
SCORES = ("energy, window", "W1, window", "energy, last state", "W1, last state")
NETWORKS = {"every fourth x": (0, (3, 7, 11, 15)), "two x": (0, (7, 15)), "every fourth z": (2, (3, 7, 11, 15))}
"""Observed channel and times. The model has the symmetry (x, y) -> (-x, -y), so that z leaves the wing undecided."""


@dataclass(frozen=True)
class Climate:
    """Lorenz-63 in units of its own climate: mean and standard deviation by channel, (3, 1, 1)."""

    mean: Tensor
    std: Tensor

    shape = (3, 1, 1)

    def step(self, state: Tensor, dt: float) -> Tensor:
        return (Lorenz63().step(state.double() * self.std + self.mean, dt) - self.mean) / self.std


def stationary(count: int, times: int, seed: int, block: int = 10_000) -> Tensor:
    """Independent trajectories on the attractor in the model's units, (count, 3, 1, times), float32."""
    generator, model = torch.Generator().manual_seed(seed), Lorenz63()
    parts = []
    for first in range(0, count, block):
        size = (min(block, count - first), 3, 1, 1)
        state = 8.0 * torch.randn(size, generator=generator, dtype=torch.float64)
        state = model.step(state + torch.tensor([0.0, 0.0, 24.0], dtype=torch.float64).view(3, 1, 1), 25.0)
        states = [state]
        for _ in range(times - 1):
            states.append(model.step(states[-1], INTERVAL))
        parts.append(torch.cat(states, dim=-1).float())
    return torch.cat(parts)


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Tensors and numbers from their file, made and written if there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            torch.save(make(), temporary)
    return torch.load(path, weights_only=True)


class Workplace:
    """Trajectories and climate of the benchmark, made once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        training = self._trajectories("training", 20_000, 64)
        mean, std = training.mean(dim=(0, 2, 3)), training.std(dim=(0, 2, 3))
        self.climate = Climate(mean.view(3, 1, 1).double(), std.view(3, 1, 1).double())

    def trajectories(self, name: str, count: int, times: int) -> Tensor:
        """In units of the climate."""
        raw = self._trajectories(name, count, times)
        return ((raw - self.climate.mean) / self.climate.std).float()

    def _trajectories(self, name: str, count: int, times: int) -> Tensor:
        path = self.directory / f"{name}-{count}-{times}.pt"
        return kept(path, lambda: stationary(count, times, derived_seed("lorenz63", name)))


def windows(trajectories: Tensor) -> Tensor:
    """Every window of 16 states, a view of shape (trajectory, start, 3, 1, 16)."""
    return trajectories.unfold(-1, TIMES, 1).permute(0, 3, 1, 2, 4)


SEARCH: list[tuple[str, dict[str, Any]]] = [
    ("256 particles of a second reference", {}),
    ("climate", {}),
    *(("ensemble smoother", {"inflation": r}) for r in (1.0, 1.1, 1.3)),
    *(("EnKF", {"inflation": r}) for r in (1.0, 1.02, 1.05, 1.1, 1.2)),
    *(("multiple data assimilation", {"passes": k}) for k in (1, 4, 16)),
    *(("particle filter", {"jitter": j}) for j in (0.0, 0.25, 0.5, 1.0)),
    *(("EDM, SDA", {"gamma": g, "steps": 32}) for g in (0.1, 0.03, 0.01, 0.003)),
    ("EDM, SDA", {"gamma": 0.01, "steps": 32, "churn": 13.0, "corrections": 2}),
    ("EDM, SDA", {"gamma": 0.003, "steps": 32, "churn": 13.0, "corrections": 2}),
    ("EDM, MMPS", {"iterations": 4, "steps": 32}),
    ("EDM, MMPS", {"iterations": 4, "steps": 32, "churn": 13.0}),
    ("EDM, MMPS", {"iterations": 4, "steps": 32, "churn": 13.0, "corrections": 2}),
]

CHOSEN: list[tuple[str, dict[str, Any]]] = [
    ("256 particles of a second reference", {}),
    ("EDM, SDA", {"gamma": 0.003, "steps": 32, "churn": 13.0, "corrections": 2}),
    ("EDM, MMPS", {"iterations": 4, "steps": 32, "churn": 13.0, "corrections": 2}),
    ("EnKF", {"inflation": 1.0}),
    ("EnKF", {"inflation": 1.2}),
    ("ensemble smoother", {"inflation": 1.0}),
    ("particle filter", {"jitter": 0.25}),
    ("climate", {}),
]
"""Settings of least energy distance in the search; of the EnKF, those for the window and for its last state."""

# The prior


class ResidualMLP(nn.Module):
    """A perceptron on the flattened window, whose blocks are scaled and shifted by the noise level."""

    def __init__(self, width: int = 256, blocks: int = 3, frequencies: int = 16) -> None:
        super().__init__()
        size = math.prod(SHAPE)
        self.register_buffer("frequencies", torch.linspace(0, 2.5, frequencies).exp())
        self.level = nn.Sequential(nn.Linear(2 * frequencies, 64), nn.SiLU())
        self.stem, self.head = nn.Linear(2 * size, width), nn.Linear(width, size)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(blocks))
        self.modulations = nn.ModuleList(nn.Linear(64, 2 * width) for _ in range(blocks))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
            )
            for _ in range(blocks)
        )
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor, c_noise: Tensor, condition: Tensor | None = None) -> Tensor:
        phase = c_noise.unsqueeze(-1) * self.frequencies
        level = self.level(torch.cat([phase.sin(), phase.cos()], dim=-1))
        h = self.stem(inputs.flatten(1))
        for norm, modulation, layer in zip(self.norms, self.modulations, self.layers, strict=True):
            scale, shift = modulation(level).chunk(2, dim=-1)
            h = h + layer(norm(h) * (1 + scale) + shift)
        return self.head(h).view(-1, *SHAPE)


def untrained(place: Workplace) -> tuple[PreconditionedDenoiser, Tensor]:
    """The Wiener denoiser of the windows' own covariance with a network that corrects it by nothing, and the windows."""
    data = windows(place.trajectories("training", 20_000, 64))
    sample = data[:, ::8].reshape(-1, math.prod(SHAPE)).double()
    mean = sample.mean(dim=0)
    covariance = (sample - mean).T @ (sample - mean) / len(sample)
    torch.manual_seed(0)
    base = DenseGaussian(mean.view(SHAPE), covariance).float()
    return PreconditionedDenoiser(ResidualMLP(), base), data


def train(place: Workplace, steps: int, batch: int, rate: float, every: int = 500) -> PreconditionedDenoiser:
    """The averaged denoiser after ``steps``; goes on from the last multiple of ``every``."""
    denoiser, data = untrained(place)
    path = place.directory / f"prior-{steps}-{batch}-{rate:g}.pt"
    parameters = list(denoiser.parameters())
    optimiser, average = torch.optim.Adam(parameters, rate, betas=(0.9, 0.99)), WeightAverage(parameters)
    first, seconds = 0, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        denoiser.load_state_dict(saved["denoiser"])
        optimiser.load_state_dict(saved["optimiser"])
        average.average = saved["average"]
        first, seconds = saved["step"], saved["seconds"]
    weights, started = torch.ones(1), time.monotonic()
    for step in range(first, steps):
        generator = torch.Generator().manual_seed(derived_seed("step", step))
        which = torch.randint(len(data), (batch,), generator=generator)
        begin = torch.randint(data.shape[1], (batch,), generator=generator)
        sigma = (-1.0 + 1.6 * torch.randn(batch, generator=generator)).exp()
        x0 = data[which, begin]
        noise = torch.randn(x0.shape, generator=generator)
        for group in optimiser.param_groups:
            group["lr"] = rate * learning_rate_factor(step * batch, steps * batch, 200 * batch, 0.7)
        loss = denoising_loss(denoiser, x0, sigma, noise, None, weights).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        average.update(parameters, step + 1)
        if (step + 1) % every == 0 or step + 1 == steps:
            state = {
                "denoiser": denoiser.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average.average,
                "step": step + 1,
                "seconds": seconds + time.monotonic() - started,
            }
            with replacing(path) as temporary:
                torch.save(state, temporary)
            print(f"step {step + 1}, {state['seconds']:.0f} s, loss {loss.item():.4f}", flush=True)
    average.swap(parameters)
    return denoiser.eval().requires_grad_(False)


# Cases and the reference


@dataclass(frozen=True)
class Case:
    """One truth, its observations in order of time, and stationary windows for methods whose prior is an ensemble."""

    key: str
    truth: Tensor
    times: tuple[int, ...]
    sources: tuple[Source, ...]
    ensemble: Tensor
    shape: tuple[int, int, int] = SHAPE

    @property
    def problem(self) -> Problem:
        return Problem(self.shape, self.sources, ensemble=self.ensemble)


def case(place: Workplace, split: str, network: str, number: int) -> Case:
    channel, times = NETWORKS[network]
    key = f"{split}-{network.replace(' ', '-')}-{number}"
    truth = place.trajectories(f"{split}-truths", CASES, TIMES)[number]
    members = place.trajectories(f"{split}-members", CASES * MEMBERS, TIMES)[number * MEMBERS : (number + 1) * MEMBERS]
    generator = torch.Generator().manual_seed(derived_seed(key, "observations"))
    values = truth[channel, 0, list(times)] + NOISE * torch.randn(len(times), generator=generator)
    sources = []
    for t, value in zip(times, values, strict=True):
        reads = sp.csr_array(([1.0], ([0], [channel * TIMES + t])), shape=(1, math.prod(SHAPE)))
        sources.append(Source(value.view(1), LinearOperator(reads, SHAPE), Diagonal(torch.tensor([NOISE**2])), str(t)))
    return Case(key, truth, times, tuple(sources), members)


def posterior_draws(
    problem: Problem, trajectories: Tensor, draws: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Draws of the posterior by importance weights, every window of stationary trajectories being one particle.

    Args:
        problem: its sources are the likelihood.
        trajectories: shape (n, channel, lat, time), at least as long as the problem's window.
        draws: how many.

    Returns:
        shape (draws, *problem.shape), and how many trajectories the weights are worth, windows of one taken as one.
    """
    length, source = problem.shape[-1], problem.stacked
    logs = []
    for start in range(trajectories.shape[-1] - length + 1):
        misfit = source.misfit(trajectories[..., start : start + length])
        logs.append(-0.5 * (misfit * source.covariance.inverse(misfit)).sum(dim=-1))
    weights = torch.stack(logs).double().flatten().softmax(dim=0)
    chosen = systematic_resampling(weights, draws, generator)
    pairs = zip((chosen // len(trajectories)).tolist(), (chosen % len(trajectories)).tolist(), strict=True)
    found = torch.stack([trajectories[i, ..., start : start + length] for start, i in pairs])
    return found, float(1 / weights.view(len(logs), -1).sum(dim=0).square().sum())


def references(place: Workplace, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws from two independent sets of particles, and what the weights are worth."""
    found = []
    for name in ("reference-a", "reference-b"):

        def weigh(name: str = name) -> dict[str, Any]:
            particles = place.trajectories(name, 40_000, 56)
            generator = torch.Generator().manual_seed(derived_seed(case.key, name))
            draws, effective = posterior_draws(case.problem, particles, DRAWS, generator)
            return {"members": draws, "effective": effective}

        found.append(kept(place.directory / f"{case.key}-{name}.pt", weigh))
    return found[0], found[1]


# Methods


def sequential(model: ForecastModel, method: Method, case: Case, generator: torch.Generator) -> Tensor:
    """A smoother that takes observations in order of time: analyse the window, then forecast anew from the time observed.

    With an ensemble Kalman filter this is the ensemble Kalman smoother (Evensen and van Leeuwen 2000).
    """
    members = case.ensemble
    for t, source in zip(case.times, case.sources, strict=True):
        members = method.analyse(Problem(case.shape, (source,), ensemble=members), len(members), generator)
        members = forecast_from(model, members, t)
    return members


def iterated(model: ForecastModel, case: Case, generator: torch.Generator, passes: int) -> Tensor:
    """All observations at once, ``passes`` times with their errors inflated to match, the window integrated anew after each.

    One pass is the ensemble smoother, several are multiple data assimilation (Emerick and Reynolds 2013).
    """
    members = case.ensemble
    weakened = tuple(replace(source, weight=1 / passes) for source in case.sources)
    for _ in range(passes):
        members = EnKF().analyse(Problem(case.shape, weakened, ensemble=members), len(members), generator)
        members = forecast_from(model, members, 0)
    return members


def forecast_from(model: ForecastModel, members: Tensor, time_index: int) -> Tensor:
    """Windows whose states after ``time_index`` are forecasts from it."""
    states = list(members[..., : time_index + 1].split(1, dim=-1))
    while len(states) < members.shape[-1]:
        states.append(model.step(states[-1], INTERVAL).to(members))
    return torch.cat(states, dim=-1)


def methods(denoiser: Denoiser, place: Workplace) -> dict[str, Callable[..., Tensor]]:
    """Case, generator and settings to members, (256, 3, 1, 16); the samplers never see the model, the others do."""

    def diffusion(guidance: Guidance, case: Case, generator: torch.Generator, sampler: dict[str, Any]) -> Tensor:
        together = Problem(case.shape, (case.problem.stacked,))  # one operator is called sooner than four
        return Fusion(denoiser, guidance, Sampler(**sampler)).analyse(together, MEMBERS, generator)

    model = place.climate
    return {
        "256 particles of a second reference": lambda case, generator: references(place, case)[1]["members"][::4],
        "climate": lambda case, generator: case.ensemble,
        "ensemble smoother": lambda case, generator, inflation: EnKF(inflation).analyse(
            case.problem, MEMBERS, generator
        ),
        "EnKF": lambda case, generator, inflation: sequential(model, EnKF(inflation), case, generator),
        "multiple data assimilation": lambda case, generator, passes: iterated(model, case, generator, passes),
        "particle filter": lambda case, generator, jitter: sequential(model, ParticleFilter(jitter), case, generator),
        "EDM, SDA": lambda case, generator, gamma, **sampler: diffusion(
            partial(SDA, gamma=gamma), case, generator, sampler
        ),
        "EDM, MMPS": lambda case, generator, iterations, **sampler: diffusion(
            partial(MMPS, iterations=iterations), case, generator, sampler
        ),
    }


# Scores


def scored(
    place: Workplace, case: Case, name: str, settings: dict[str, Any], run: Callable[..., Tensor]
) -> dict[str, Any]:
    """Members of one method on one case, with their distances from the reference; kept."""

    def make() -> dict[str, Any]:
        started = time.monotonic()
        generator = torch.Generator().manual_seed(derived_seed(case.key, name))
        try:
            members = run(case, generator, **settings)
        except FloatingPointError:
            members = torch.full((MEMBERS, *SHAPE), math.nan)
        seconds = time.monotonic() - started
        scores = distances(members, references(place, case)[0]["members"], case.key)
        return {"members": members, "scores": scores, "seconds": seconds}

    label = "-".join([name, *(f"{key}={value}" for key, value in settings.items())]).replace(" ", "_")
    return kept(place.directory / "members" / f"{case.key}-{label}.pt", make)


def distances(members: Tensor, draws: Tensor, key: str) -> list[float]:
    """Energy distance and sliced W1 of the window and of its last state; see :data:`SCORES`."""
    found = []
    for a, b in ((members, draws), (members[..., -1], draws[..., -1])):
        x, y = a.flatten(1), b.flatten(1)
        size = math.sqrt(x.shape[1])  # the norm is the root mean square over the elements
        generator = torch.Generator().manual_seed(derived_seed(key, "directions"))
        found += [energy_distance(x / size, y / size), sliced_wasserstein(x, y, generator)]
    return found


def results(
    place: Workplace, split: str, count: int, rows: list[tuple[str, dict[str, Any]]], run: Mapping[str, Callable]
) -> dict[str, list[NDArray[np.float64]]]:
    """Scores by observing network, then by row, each (case, score)."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for network in NETWORKS:
        found[network] = []
        chosen = [case(place, split, network, number) for number in range(count)]
        for name, settings in rows:
            each = [scored(place, c, name, settings, run[name]) for c in chosen]
            scores = np.array([e["scores"] for e in each])
            found[network].append(scores)
            seconds = np.mean([e["seconds"] for e in each])
            print(network, name, settings, scores.mean(axis=0).round(4), f"{seconds:.1f} s", flush=True)
    return found


def label(name: str, settings: Mapping[str, Any]) -> str:
    return ", ".join([name, *(f"{key} {value}" for key, value in settings.items())])


def table(found: list[NDArray[np.float64]], rows: list[tuple[str, dict[str, Any]]], against: str | None) -> str:
    """Mean ± standard error over cases of every score; energy distances also case by case less those of another method.

    Of several rows of that method the one with the smallest mean counts.
    """
    head, baselines = ["method", *SCORES], {}
    if against is not None:
        rivals = [scores for (name, _), scores in zip(rows, found, strict=True) if name == against]
        for k in (0, 2):
            baselines[k] = min((scores[:, k] for scores in rivals), key=lambda column: column.mean())
            head.append(f"{SCORES[k]}, less {against}'s")
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for (name, settings), scores in zip(rows, found, strict=True):
        cells = [label(name, settings), *(pm(column) for column in scores.T)]
        cells += ["" if name == against else pm(scores[:, k] - baseline) for k, baseline in baselines.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pm(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) / math.sqrt(len(values)):.3f}"


def compare(place: Workplace, count: int, run: dict[str, Callable[..., Tensor]], out: Path) -> None:
    found = results(place, "test", count, CHOSEN, run)
    parts = []
    for network, scores in found.items():
        worth = [r["effective"] for i in range(count) for r in references(place, case(place, "test", network, i))]
        parts.append(f"## Observed: {network}\n")
        parts.append(table(scores, CHOSEN, "EnKF") + "\n")
        parts.append(f"Effective number of particles of the reference: {min(worth):.0f} to {max(worth):.0f}.\n")
    out.with_suffix(".md").write_text("\n".join(parts))
    out.with_suffix(".png").write_bytes(figure(place, run))


def figure(place: Workplace, run: dict[str, Callable[..., Tensor]], shown: int = 0) -> bytes:
    """The state in the middle of the window, x against z, of one case of every network."""
    names = ("particles", "EDM, MMPS", "EDM, SDA", "EnKF")
    with style():
        canvas = new_figure(7.6, 5.8)
        axes = canvas.subplots(len(NETWORKS), len(names), sharex=True, sharey=True)
        climate = place.trajectories("test-members", CASES * MEMBERS, TIMES)[:2000, :, 0, 0]
        for row, network in zip(axes, NETWORKS, strict=True):
            c = case(place, "test", network, shown)
            for axis, name in zip(row, names, strict=True):
                if name == "particles":
                    members = references(place, c)[0]["members"][::4]
                else:
                    settings = next(settings for row_name, settings in CHOSEN if row_name == name)
                    members = scored(place, c, name, settings, run[name])["members"]
                axis.plot(*climate[:, [0, 2]].T, ".", color="0.88", markersize=1.5, zorder=0)
                axis.plot(*members[:, [0, 2], 0, MIDDLE].T, ".", color=ANALYSIS_COLOUR, markersize=2)
                axis.plot(*c.truth[[0, 2], 0, MIDDLE], "x", color=BASELINE_COLOURS[0], markersize=6)
            row[0].set_ylabel(f"{network}\nz")
        for axis, name in zip(axes[0], names, strict=True):
            axis.set_title("1.6 million particles" if name == "particles" else name)
        for axis in axes[-1]:
            axis.set_xlabel("x")
        canvas.tight_layout()
        return finish(canvas, "", "").png


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["train", "search", "compare"])
    parser.add_argument("--work", type=Path, default=Path("runs/lorenz63-posterior"), help="what is kept between runs")
    parser.add_argument("--steps", type=int, default=8_000, help="of training")
    parser.add_argument("--batch", type=int, default=256, help="of training")
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning")
    parser.add_argument("--cases", type=int, default=CASES, help=f"at most {CASES}")
    parser.add_argument("--only", default="", help="search: methods whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("lorenz63-posterior"), help="compare: a .md and a .png")
    args = parser.parse_args()
    place = Workplace(args.work)
    denoiser = train(place, args.steps, args.batch, args.rate)
    run = methods(denoiser, place)
    if args.task == "search":
        rows = [row for row in SEARCH if args.only in row[0]]
        for network, scores in results(place, "validation", args.cases, rows, run).items():
            print(f"\n{network}\n\n{table(scores, rows, None)}")
    if args.task == "compare":
        compare(place, args.cases, run, args.out)


if __name__ == "__main__":
    main()
