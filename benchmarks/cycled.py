"""What the table of a cycled suite does not show: errors turn by turn, and what the model costs.

python benchmarks/cycled.py series cycled --data nature.zarr --runs runs
python benchmarks/cycled.py cost --grid t31
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from genda.benchmark import read_suite
from genda.benchmark.experiment import experiment_of
from genda.benchmark.kept_cycle import read_turns
from genda.benchmark.runner import pairs
from genda.forecast.backgrounds import VARIANTS, integrated
from genda.forecast.ensembles import cycle_starts
from genda.forecast.incremental import as_fields, changed, channels_at_end, model_levels, single_model
from genda.forecast.nature import NatureModel, optional
from genda.forecast.sigma import to_sigma_levels
from genda.forecast.store import dynamics_at, open_run
from genda.variables import EMBEDDED_CHANNELS

app = typer.Typer()


@app.command()
def series(
    suite: str, data: Annotated[Path, typer.Option()], runs: Annotated[Path, typer.Option()] = Path("runs")
) -> None:
    """Print normalised MSE of analysis / forecast after every turn, of cycles finished or under way."""
    chosen = read_suite(suite)
    experiment = experiment_of(chosen, data)
    for pair in pairs(chosen, runs, data):
        file = pair.file.with_suffix(".turns.npz")
        if not file.exists():
            continue
        turns = read_turns(file, experiment.channels)
        errors = (
            (turns.values[name] / experiment.std**2).mean(axis=1)
            for name in ("squared_error", "forecast_squared_error")
        )
        print(f"{pair.scenario}, {pair.name}, from {pair.case}:", end=" ")
        print(", ".join(f"{analysis:.3f} / {forecast:.3f}" for analysis, forecast in zip(*errors, strict=True)))


@app.command()
def cost(grid: str = "t31", days: int = 5) -> None:
    """Print processor seconds of a simulated day for 1, 8 and 16 members, one by one and vectorised, and of an increment."""
    print("| members | one by one, s | vectorised, s |\n|---:|---:|---:|")
    alone = _seconds(NatureModel(grid), days)
    for members in (1, 8, 16):
        together = alone if members == 1 else _seconds(NatureModel(grid, members), days)
        print(f"| {members} | {members * alone:.1f} | {together:.1f} |")
    model = NatureModel(grid)
    state = model.start([0], [np.datetime64("2001-01-01")])
    state, (fields,) = model.advance(state)
    values = channels_at_end(fields, EMBEDDED_CHANNELS)
    changed(model, state, 0 * values, EMBEDDED_CHANNELS)
    started = time.process_time()
    changed(model, state, 0 * values, EMBEDDED_CHANNELS)
    print(f"\nincrement of one member: {time.process_time() - started:.2f} s")


@app.command()
def round_trip(data: Annotated[Path, typer.Option()], date: Annotated[list[str], typer.Option()]) -> None:
    """Print what is lost of a background's errors on the way from pressure levels to the truth's modal state and back.

    RMS of what is missing over RMS of the change, mean over the dates; a background is a forecast of 72 h by an imperfect model.
    """
    run = open_run(data)
    model = single_model(run.grid)
    lost = []
    for day in date:
        time = np.datetime64(day, "ns")
        state, _ = integrated(run, model, cycle_starts(run, time, 1, 0), VARIANTS["b"].alpha)
        background = model.dynamics([leaf[0] for leaf in model.leaves(state.dynamics)])
        truth = model.dynamics(dynamics_at(run, time))
        before, wanted = (_shown(model, dynamics) for dynamics in (truth, background))
        levels = [100.0 * level for level in model_levels(EMBEDDED_CHANNELS)]
        on_sigma = to_sigma_levels(as_fields(wanted - before, EMBEDDED_CHANNELS), levels, model.ground(truth))
        found = _shown(model, model.moved(truth, on_sigma))
        squares = [(model.grid.area_weights[:, None] * x**2).sum((-2, -1)) for x in (found - wanted, wanted - before)]
        lost.append(np.sqrt(squares[0] / squares[1]))
    print("| channel | lost |\n|---|---:|")
    for name, share in zip(EMBEDDED_CHANNELS, np.mean(lost, axis=0), strict=True):
        print(f"| {name} | {share:.3f} |")


def _shown(model: NatureModel, dynamics: Any) -> np.ndarray:
    """Channels of a modal state by jcm's own transforms; t2m by continuing the lowest two levels, as SPEEDY does."""
    bridge = optional("jcm.dycore.dinosaur.state_bridge")
    state = bridge.dynamics_state_to_physics_state(dynamics, model._dycore.primitive)
    names = {"u": "u_wind", "v": "v_wind", "q": "specific_humidity", "surface_pressure": "normalized_surface_pressure"}
    names |= {name: name for name in ("temperature", "geopotential")}
    host = {name: np.asarray(getattr(state, long))[None] for name, long in names.items()}
    above, lowest = host["temperature"][:, -2], host["temperature"][:, -1]
    beyond = np.log(0.99 / model.sigma[-1]) / np.log(model.sigma[-1] / model.sigma[-2])
    fields = model._fields(host | {"t2m": lowest + beyond * (lowest - above)})
    return channels_at_end(fields, EMBEDDED_CHANNELS)


def _seconds(model: NatureModel, days: int) -> float:
    state = model.start(list(range(model.members)), [np.datetime64("2001-01-01")] * model.members)
    state, _ = model.advance(state)  # compiles
    started = time.process_time()
    for _ in range(days):
        state, _ = model.advance(state)
    return (time.process_time() - started) / days


if __name__ == "__main__":
    app()
