"""One score of a suite's rows against another, both over the reference's, as curves: what a setting gives and what it takes.

genda benchmark SUITE --data nature.zarr --scenario NAME --reference 'weight 0' --json > rows.json
python benchmarks/tradeoff.py rows.json tendency_size:u nmse:all --rows 'weight 0,weight 0.2,weight 1,weight 5'
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from ratios import score, title

from genda.report.style import ANALYSIS_COLOUR, BASELINE_COLOURS, finish, new_figure, style


def main(
    results: Annotated[Path, typer.Argument(help="what `genda benchmark --json` printed")],
    across: Annotated[str, typer.Argument(help="metric:column")],
    up: Annotated[str, typer.Argument(help="metric:column")],
    rows: Annotated[list[str], typer.Option(help="of a curve in its order, separated by commas; once for each curve")],
    out: Annotated[Path, typer.Option(help="a PNG")] = Path("tradeoff.png"),
) -> None:
    """Draw curves with standard errors, a label at each row."""
    colours = (ANALYSIS_COLOUR, *BASELINE_COLOURS)
    if len(rows) > len(colours):
        raise typer.BadParameter(f"found {len(rows)} curves, expected at most {len(colours)}")
    document = json.loads(results.read_text())
    by_name = {row["method"]: row for row in document["rows"]}
    with style():
        canvas = new_figure(4.6, 3.4)
        axes = canvas.add_subplot()
        for curve, colour in zip(rows, colours, strict=False):
            names = curve.split(",")
            found = [[score(by_name[n], axis) for n in names] for axis in (across, up)]
            if None in found[0] + found[1]:
                raise typer.BadParameter(f"rows {curve}: found one without {across} or {up}, expected both of all")
            (x, dx), (y, dy) = (zip(*cells, strict=True) for cells in found)
            axes.errorbar(x, y, xerr=dx, yerr=dy, color=colour, marker="o", markersize=4, elinewidth=0.6)
            for name, *point in zip(names, x, y, strict=True):
                axes.annotate(name, point, textcoords="offset points", xytext=(6, 5))
        axes.margins(0.15)
        axes.set_xlabel(f"{title(across)}, over {document['reference']}")
        axes.set_ylabel(f"{title(up)}, over {document['reference']}")
        canvas.tight_layout()
        out.write_bytes(finish(canvas, "", "").png)


if __name__ == "__main__":
    typer.run(main)
