"""How many values of each variable files of soundings hold at the standard levels and between them.

python benchmarks/level_counts.py temp.bufr AUM00011035-data.txt.gz
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from genda.observations import read_observations
from genda.observations.table import PRESSURE_ROUNDING
from genda.verify.innovations import STANDARD_HPA


def main(files: Annotated[list[Path], typer.Argument(help="soundings of any readable kind")]) -> None:
    """Print a Markdown table."""
    print("| file | | " + " | ".join(map(str, STANDARD_HPA)) + " | other | all |")
    print("|---|---|" + "---:|" * (len(STANDARD_HPA) + 2))
    standard = 100.0 * np.asarray(STANDARD_HPA)
    for file in files:
        table = read_observations(file)
        pressure = table["pressure"].to_numpy()
        nearest = np.abs(pressure[:, None] - standard).argmin(axis=1)
        level = np.where(np.abs(pressure - standard[nearest]) < PRESSURE_ROUNDING, nearest, len(standard))
        counts = pd.crosstab(table["variable"], level).reindex(columns=range(len(standard) + 1), fill_value=0)
        for variable in ("z", "t", "u", "v", "q"):
            row = counts.loc[variable]
            print(f"| {file.name} | {variable} | " + " | ".join(map(str, row)) + f" | {row.sum()} |")


if __name__ == "__main__":
    typer.run(main)
