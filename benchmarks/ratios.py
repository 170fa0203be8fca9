"""Chosen scores of a suite's rows over the reference's, as one Markdown table: what papers print.

genda benchmark SUITE --data nature.zarr --json > rows.json
python benchmarks/ratios.py rows.json specdiv:z500 nmse:all rmse:z500 rmse:t850 --scenario '2 %'
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from genda.verify.metrics import METRICS


def score(row: dict[str, Any], name: str) -> tuple[float, float] | None:
    """Ratio of ``metric:column`` to the reference's on the same dates, and its standard error, 0 where it is not known."""
    metric, column = name.split(":")
    found = row["metrics"].get(metric, {}).get(column, {})
    if found.get("ratio") is None:
        return None
    return float(found["ratio"]), float(found.get("ratio_stderr") or 0.0)


def title(name: str) -> str:
    """What ``metric:column`` is called in tables."""
    metric, column = name.split(":")
    return METRICS[metric].title if column == "all" else f"{METRICS[metric].title}, {column}"


def main(
    results: Annotated[Path, typer.Argument(help="what `genda benchmark --json` printed")],
    columns: Annotated[list[str], typer.Argument(help="metric:column")],
    scenario: Annotated[str, typer.Option(help="of the suite")],
) -> None:
    """Print a row for every method but the reference; a cell is empty where there is no such score."""
    document = json.loads(results.read_text())
    rows = [row for row in document["rows"] if row["scenario"] == scenario]
    if not rows:
        raise typer.BadParameter(f"scenario: found none named {scenario!r} in {results}")
    print("| | " + " | ".join(map(title, columns)) + " |")
    print("|---|" + "---:|" * len(columns))
    for row in rows:
        if row["method"] != document["reference"]:
            found = [score(row, name) for name in columns]
            cells = ["" if cell is None else "{:.3f} ± {:.3f}".format(*cell) for cell in found]
            print(f"| {row['method']} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    typer.run(main)
