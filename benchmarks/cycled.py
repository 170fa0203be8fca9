"""What the table of a cycled suite does not show: errors turn by turn, and what the model costs.

python benchmarks/cycled.py series cycled --data nature.zarr --runs runs
python benchmarks/cycled.py cost --grid t31
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from genda.benchmark import read_suite
from genda.benchmark.experiment import experiment_of
from genda.benchmark.kept_cycle import read_turns
from genda.benchmark.runner import pairs
from genda.forecast.incremental import changed, channels_at_end
from genda.forecast.nature import NatureModel
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


def _seconds(model: NatureModel, days: int) -> float:
    state = model.start(list(range(model.members)), [np.datetime64("2001-01-01")] * model.members)
    state, _ = model.advance(state)  # compiles
    started = time.process_time()
    for _ in range(days):
        state, _ = model.advance(state)
    return (time.process_time() - started) / days


if __name__ == "__main__":
    app()
