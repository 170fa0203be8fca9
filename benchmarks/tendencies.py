"""How far the primitive equations tell the nature run's own changes: correlation of K_PDE with 12 h differences, by channel.

    python benchmarks/tendencies.py nature.zarr --pairs 60

Over half a day tendencies turn with the flow, so that even a model's own at both ends would not give 1. What the equations here
leave out on purpose is friction, radiation and convection.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import typer

from genda.forecast.climate import open_nature_run
from genda.physics import PrimitiveEquations
from genda.state import from_dataset
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS
from genda.verify.tendencies import change_correlation


def main(
    data: Annotated[str, typer.Argument(help="nature run")],
    split: str = "validation",
    pairs: int = 60,
) -> None:
    """Print tables of a row a field and a column a level, for both closures of continuity."""
    truth = open_nature_run(data)
    truth = truth.isel(time=(truth["split"] == split).values)
    steps = np.diff(truth["time"].values)
    if not len(steps):
        raise typer.BadParameter(f"{data}: found {len(truth['time'])} states of {split!r}, expected at least 2")
    starts = np.flatnonzero(steps == steps.min())
    starts = starts[np.linspace(0, len(starts) - 1, min(pairs, len(starts))).round().astype(int)]
    seconds = float(steps.min() / np.timedelta64(1, "s"))
    states = [from_dataset(truth.isel(time=slice(start, start + 2)), EMBEDDED_CHANNELS) for start in starts]
    for closure in ("rigid", "free"):
        dynamics = PrimitiveEquations(states[0].grid, EMBEDDED_CHANNELS, closure=closure)
        mean = torch.stack([change_correlation(dynamics, *state.values, seconds) for state in states]).mean(dim=0)
        found = dict(zip(EMBEDDED_CHANNELS, mean.tolist(), strict=True))
        print(f"\n{closure} closure, {len(states)} pairs of states of {split!r}, {seconds / 3600:g} h apart\n")
        print("| | " + " | ".join(f"{level} hPa" for level in EMBEDDED_LEVELS) + " |")
        print("|---|" + "---:|" * len(EMBEDDED_LEVELS))
        for field in "zuvtq":
            row = [found[f"{field}{level}"] for level in EMBEDDED_LEVELS]
            print(f"| {field} | " + " | ".join("" if np.isnan(r) else f"{r:.2f}" for r in row) + " |")


if __name__ == "__main__":
    typer.run(main)
