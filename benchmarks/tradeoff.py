"""One score of a suite's rows against another, as a curve: what a setting gives and what it takes.

genda benchmark benchmarks/search/phyda.yaml --data nature.zarr --json > rows.json
python benchmarks/tradeoff.py rows.json tendency_size:u nmse:all --rows 'weight 0,weight 0.2,weight 1'
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from genda.report.style import ANALYSIS_COLOUR, finish, new_figure, style
from genda.verify.metrics import METRICS


def score(row: dict[str, Any], name: str) -> tuple[float, float]:
    """Mean and standard error of ``metric:column``."""
    metric, column = name.split(":")
    found = row["metrics"][metric][column]
    return float(found["mean"]), float(found["stderr"])


def title(name: str) -> str:
    """What ``metric:column`` is called in tables."""
    metric, column = name.split(":")
    return f"{METRICS[metric].title}, {column}"


def main(
    results: Annotated[Path, typer.Argument(help="what `genda benchmark --json` printed")],
    across: Annotated[str, typer.Argument(help="metric:column")],
    up: Annotated[str, typer.Argument(help="metric:column")],
    rows: Annotated[str, typer.Option(help="in the order of the curve, separated by commas")],
    out: Annotated[Path, typer.Option(help="a PNG")] = Path("tradeoff.png"),
) -> None:
    """Draw the curve with standard errors, a label at each row."""
    document = json.loads(results.read_text())
    by_name = {row["method"]: row for row in document["rows"]}
    names = rows.split(",")
    (x, dx), (y, dy) = (zip(*(score(by_name[name], axis) for name in names), strict=True) for axis in (across, up))
    with style():
        canvas = new_figure(4.6, 3.4)
        axes = canvas.add_subplot()
        axes.errorbar(x, y, xerr=dx, yerr=dy, color=ANALYSIS_COLOUR, marker="o", markersize=4, elinewidth=0.6)
        for name, *point in zip(names, x, y, strict=True):
            axes.annotate(name, point, textcoords="offset points", xytext=(6, 6))
        axes.set_xlabel(title(across))
        axes.set_ylabel(title(up))
        canvas.tight_layout()
        out.write_bytes(finish(canvas, "", "").png)


if __name__ == "__main__":
    typer.run(main)
