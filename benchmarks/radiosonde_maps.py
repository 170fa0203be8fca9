"""Maps of an analysis of real ascents, and its departures where stations were withheld.

python benchmarks/radiosonde_maps.py ../shared/data/temp.bufr --out docs/results/radiosondes-z500.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from genda.benchmark import read_suite
from genda.benchmark.soundings import Parted, SoundingExperiment
from genda.observations.flags import Flag
from genda.report.maps import Panel, draw_coast, draw_map, frame_map
from genda.report.style import (
    DIFFERENCE,
    display_units,
    finish,
    label,
    new_figure,
    robust_limits,
    style,
    symmetric_limit,
)
from genda.sources import observe
from genda.state import State
from genda.usable import in_observed_climate
from genda.variables import channel


def main(
    file: Annotated[Path, typer.Argument(help="ascents of one time")],
    row: Annotated[str, typer.Option(help="of the suite radiosondes")] = "EDM MMPS",
    other: Annotated[str, typer.Option(help="another, to compare with")] = "optimal interpolation",
    name: Annotated[str, typer.Option("--channel")] = "z500",
    case: Annotated[int, typer.Option(help="the part that is withheld")] = 0,
    out: Annotated[Path, typer.Option(help="a PNG")] = Path("radiosondes.png"),
) -> None:
    """Draw mean, spread, difference from the other row, and departures."""
    torch.set_grad_enabled(False)
    suite = read_suite("radiosondes")
    experiment = SoundingExperiment(suite, file)
    model, units = experiment.model, display_units(name)[1]
    fields: dict[str, torch.Tensor] = {}
    for title in (row, other):
        parted, members = experiment.analyse(suite.methods[title], str(case))
        state = State(members.unsqueeze(0), model.channels, model.grid, np.array([parted.time]))
        fields[title] = in_observed_climate(model, state, parted.mapping).select([name]).values[0, :, 0].double()
        if title == row:
            sites = departures(experiment, parted, members, name)
    mean, spread = fields[row].mean(dim=0).numpy(), fields[row].std(dim=0).numpy()
    difference = fields[other].mean(dim=0).numpy() - mean
    top = symmetric_limit(difference, sites["departure"].to_numpy())
    panels = [
        (Panel(f"{row}: mean of {len(fields[row])}", mean, model.grid, "field"), robust_limits(mean)),
        (Panel(f"{row}: spread (std)", spread, model.grid, "spread"), (0.0, symmetric_limit(spread))),
        (Panel(f"{other} − {row}", difference, model.grid, "difference"), (-top, top)),
    ]
    places = parted.used[["latitude", "longitude"]].drop_duplicates()
    coast = model.static["land_sea_mask"].numpy()
    with style():
        canvas = new_figure(8.6, 5.9)
        axes = canvas.subplots(2, 2).ravel()
        for ax, (panel, limits) in zip(axes, panels, strict=False):
            mesh = draw_map(ax, panel, limits, name, coast, model.grid)
            ax.plot(centred(places["longitude"]), places["latitude"], ".", color="black", markersize=1.2)
            ax.set_title(panel.title, loc="left")
            extend = "max" if panel.kind == "spread" else "both"
            canvas.colorbar(mesh, ax=ax, orientation="horizontal", fraction=0.05, pad=0.09, extend=extend)
        draw_coast(axes[3], coast, model.grid)
        frame_map(axes[3], model.grid)
        dots = axes[3].scatter(
            centred(sites["longitude"]), sites["latitude"], c=sites["departure"], cmap=DIFFERENCE, vmin=-top, vmax=top,
            s=26, edgecolors="black", linewidths=0.4, zorder=3,
        )  # fmt: skip
        size = float(np.sqrt(np.mean(sites["departure"] ** 2)))
        axes[3].set_title(f"Observed − {row} at {len(sites)} withheld sites, rms {size:.3g}", loc="left")
        canvas.colorbar(dots, ax=axes[3], orientation="horizontal", fraction=0.05, pad=0.09, extend="both")
        when = np.datetime_as_string(parted.time, "h").replace("T", " ")
        canvas.suptitle(f"{when} UTC, {label(name)} [{units}]; black dots: sites assimilated")
        canvas.tight_layout()
        out.write_bytes(finish(canvas, "", "", full_colour=True).png)


def departures(experiment: SoundingExperiment, parted: Parted, members: torch.Tensor, name: str):
    """The withheld observations of a channel with their departure from the mean of members, as observed."""
    table, parsed = parted.withheld, channel(name)
    seen = observe(experiment.model, members.mean(dim=0), table).numpy()
    equivalent = parted.mapping.to_earth(table, seen, parted.climatology)
    table = table.assign(departure=(table["observation"] - equivalent) * display_units(name)[0])
    at_level = (table["variable"] == parsed.field.id) & np.isclose(table["pressure"], parsed.pressure)
    return table[at_level & (table["quality"] == Flag.PASS)]


def centred(longitude):
    """Degrees from −180."""
    return (longitude + 180.0) % 360.0 - 180.0


if __name__ == "__main__":
    typer.run(main)
