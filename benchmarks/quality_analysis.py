"""What quality control is worth to an analysis: real ascents with planted errors, judged at withheld stations.

    python -m benchmarks.quality_analysis temp.bufr [--share 0.02] [--folds 5]

One station in ten is withheld in turn, errors are planted in the others as by benchmarks/quality.py, and optimal interpolation with
the embedded prior (mapped to the climate of the day, as suite ``radiosondes``) analyses what is left by (a) nothing but missing
and doubled values, (b) gross bounds and the departure from climatology besides, (c) all checks of the default list as well.
Prints RMSE at the withheld stations, with nothing planted first, as a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from quality import planted

from genda import assimilation as library
from genda.observations import (
    assign_errors,
    check_bounds,
    check_duplicates,
    check_missing,
    read_checks,
    read_observations,
)
from genda.sources import observe, point_source
from genda.usable import usable_observations

SHOWN = (("z", 50000.0), ("t", 85000.0), ("t", 50000.0), ("u", 50000.0), ("v", 50000.0), ("q", 70000.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    model = library.load_prior("embedded")
    raw = assign_errors(read_observations(options.file))
    raw = raw[raw["pressure"] >= 2000].reset_index(drop=True)
    time = np.datetime64(raw["time"].mode()[0].round("6h"), "ns")
    order = np.random.default_rng(0).permutation(raw["station"].unique())
    settings = {
        "no checks": ((check_missing, check_duplicates), 1e9),
        "bounds, climatology": ((check_missing, check_bounds, check_duplicates), 5.0),
        "all checks": (tuple(read_checks().values()), 5.0),
    }
    print(
        "| planted | checks | "
        + " | ".join(f"{v}{p / 100:.0f}" for v, p in SHOWN)
        + " |\n"
        + "|---" * (2 + len(SHOWN))
        + "|"
    )
    for share in (0.0, options.share):
        for label, (checks, factor) in settings.items():
            parts = []
            for fold in range(options.folds):
                held = raw["station"].isin(set(order[fold::10]))
                table = raw[~held].reset_index(drop=True)
                table = planted(table, share, fold)[0] if share else table
                table, mapping = usable_observations(
                    model, table, time, 3.0, map_climate=True, gross_factor=factor, checks=checks
                )
                source = point_source(model, table[table["quality"] == 0], time)
                state = (
                    library.assimilate(model, [source], time, "optimal-interpolation", 1, 0).members.values[0].mean(0)
                )
                judged, _ = usable_observations(model, raw[held], time, 3.0, mapping=mapping)
                judged = judged[judged["quality"] == 0]
                found = observe(model, state, judged).numpy()
                parts.append(judged.assign(square=(found - judged["observation"]) ** 2))
            rmse = pd.concat(parts).groupby(["variable", "pressure"])["square"].mean() ** 0.5
            cells = " | ".join(f"{rmse[key]:.3g}" for key in SHOWN)
            print(f"| {100 * share:g} % | {label} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
