"""Gross errors planted in real soundings: how many the checks catch, and how many good values they flag with them.

    python benchmarks/quality.py FILE… [--checks qc.yaml] [--share 0.01] [--seed 0]

One reported value in a hundred of each kind below the 20 hPa level is made wrong: temperature by 15 to 40 K, height by 300 to
2,000 m, the wind vector by 25 to 60 m/s, the dew point by 15 to 40 K towards moist (towards dry is what dry air has, and no
check without a background can tell), and a tenth of all by a unit: °C as K, m as m² s⁻², knots as m/s, g/kg as kg/kg.
Errors are those of a report: reports give humidity as a depression of the dew point, so that a wrong temperature takes the dew
point and with it specific humidity along, as it would if the file itself were damaged ("q of t": those besides the planted q).
Good is every value as it was reported: that some of them are wrong as well counts against the checks. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from genda.observations import Flag, assign_errors, read_checks, read_observations, run_checks
from genda.observations.conversions import EPSILON, ZERO_CELSIUS, saturation_vapour_pressure, specific_humidity
from genda.observations.table import soundings
from genda.variables import STANDARD_GRAVITY

UPPERMOST = 2000.0  # Pa


def dewpoint(humidity: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """K, the inverse of the conversions' saturation formula."""
    vapour = humidity * pressure / (EPSILON + (1 - EPSILON) * humidity)
    ratio = np.log(np.maximum(vapour, 1e-9) / 611.2)
    return ZERO_CELSIUS + 243.12 * ratio / (17.62 - ratio)


def planted(table: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The table with errors, and which rows have one (both components of a wind, the humidity of a temperature)."""
    draw = np.random.default_rng(seed)
    value = table["observation"].to_numpy(copy=True)
    wrong = np.zeros(len(table), dtype=bool)
    variable, pressure = table["variable"].to_numpy(), table["pressure"].to_numpy()
    quality = table["quality"].to_numpy(copy=True)
    usable = (quality == 0) & (pressure >= UPPERMOST)
    for name in ("t", "z", "u", "q"):
        rows = np.flatnonzero(usable & (variable == name) & ~wrong)
        if name == "u":
            rows = rows[(rows + 1 < len(table))]
            rows = rows[variable[rows + 1] == "v"]
        rows = draw.choice(rows, max(1, int(share * rows.size)), replace=False)
        unit = draw.random(rows.size) < 0.1
        sign = draw.choice([-1.0, 1.0], rows.size)
        if name == "t":
            change = np.where(unit, -273.15, sign * draw.uniform(15, 40, rows.size))
            value[rows] += change
            humid, by = humidities(table, rows, change)
            carried = dewpoint(value[humid], pressure[humid]) + by
            value[humid] = specific_humidity(saturation_vapour_pressure(carried), pressure[humid])
            refused = humid[np.isnan(value[humid])]  # by the reader, which can't convert it
            quality[refused] = Flag.BOUNDS
            wrong[humid] = True
        elif name == "z":
            metres = sign * draw.uniform(300, 2000, rows.size) * STANDARD_GRAVITY
            value[rows] = np.where(unit, value[rows] / STANDARD_GRAVITY, value[rows] + metres)
        elif name == "q":
            moist = dewpoint(value[rows], pressure[rows]) + draw.uniform(15, 40, rows.size)
            raised = specific_humidity(saturation_vapour_pressure(moist), pressure[rows])
            value[rows] = np.where(unit | np.isnan(raised), 1000 * value[rows], raised)
        else:
            angle, speed = draw.uniform(0, 2 * np.pi, rows.size), draw.uniform(25, 60, rows.size)
            calm = np.hypot(value[rows], value[rows + 1]) < 25
            knots = unit & ~calm
            for offset, part in ((0, np.cos(angle)), (1, np.sin(angle))):
                value[rows + offset] = np.where(
                    knots, value[rows + offset] / 0.5144, value[rows + offset] + speed * part
                )
            wrong[rows + 1] = True
        wrong[rows] = True
    return table.assign(observation=value, quality=quality), wrong


def humidities(table: pd.DataFrame, rows: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the humidities that pass at the levels of some temperatures, and what of an array by temperature is theirs."""
    level = soundings(table, "pressure")
    by_level = np.zeros(level.max() + 1)
    by_level[level[rows]] = change
    found = np.flatnonzero(((table["variable"] == "q") & (table["quality"] == 0)).to_numpy() & (by_level[level] != 0))
    return found, by_level[level[found]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--checks", type=Path)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checks = read_checks(options.checks)
    print("| file | variable | planted | caught | good | flagged | of good |\n|---|---|---|---|---|---|---|")
    for path in options.files:
        table = assign_errors(read_observations(path))
        table = table[(table["quality"] == 0) & (table["pressure"] >= UPPERMOST)].reset_index(drop=True)
        bad, wrong = planted(table, options.share, options.seed)
        started = time.process_time()
        checked = run_checks(bad, checks.values())
        seconds = time.process_time() - started
        flagged = (checked["quality"] != 0).to_numpy()
        level = soundings(table, "pressure")
        of_wrong_t = np.isin(level, level[wrong & (table["variable"] == "t").to_numpy()])
        for name in ("z", "t", "u", "v", "q", "q of t", "all"):
            rows = np.ones(len(table), dtype=bool) if name == "all" else (table["variable"] == name[0]).to_numpy()
            if name[0] == "q":
                rows = rows & (~wrong | (of_wrong_t == (name == "q of t")))
            hits, false = int((flagged & wrong & rows).sum()), int((flagged & ~wrong & rows).sum())
            count, good = int((wrong & rows).sum()), int((~wrong & rows).sum())
            caught, lost = f"{100 * hits / count:.1f} %", f"{100 * false / good:.2f} %"
            of_good = "| | | |" if name == "q of t" else f"| {good} | {false} | {lost} |"
            print(f"| {path.name} | {name} | {count} | {caught} {of_good}")
        alone = run_checks(table, checks.values())
        by_flag = checked.loc[wrong, "quality"].value_counts().to_dict()
        print(
            f"{seconds:.1f} s; flags of the planted {by_flag}; without any planted {(alone['quality'] != 0).sum()} flagged"
        )


if __name__ == "__main__":
    main()
