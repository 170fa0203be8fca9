"""The tables of a finished suite: scores with standard errors, ratios and significance against a reference, cost, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from genda.benchmark.experiment import experiment_of
from genda.benchmark.runner import Pair, pairs, read_pair
from genda.benchmark.soundings import SoundingSuite
from genda.benchmark.suite import Suite
from genda.variables import HEADLINE_CHANNELS, channel
from genda.verify import (
    BIAS,
    CHI_SQUARE,
    CRPS,
    DEPARTURE_CHI_SQUARE,
    ENERGY_SCORE,
    FORECAST_NMSE,
    FORECAST_RMSE,
    FORECAST_SPREAD_SKILL,
    GEOSTROPHIC,
    HYDROSTATIC,
    KINETIC_ENERGY,
    NMAE,
    NMSE,
    OUTLIERS,
    RMSE,
    SPECDIV,
    SPECDIV_ANOMALY,
    SPECDIV_ANOMALY_MEAN,
    SPECDIV_MEAN,
    SPREAD_SKILL,
    STATE_RMSE,
    TENDENCIES,
    TENDENCY_SIZE,
    ScoreTable,
    Statistics,
    paired_difference,
)

METRICS = (
    RMSE,
    NMSE,
    NMAE,
    FORECAST_RMSE,
    FORECAST_NMSE,
    FORECAST_SPREAD_SKILL,
    SPECDIV,
    SPECDIV_MEAN,
    SPECDIV_ANOMALY,
    SPECDIV_ANOMALY_MEAN,
    SPREAD_SKILL,
    OUTLIERS,
    CRPS,
    ENERGY_SCORE,
    CHI_SQUARE,
    KINETIC_ENERGY,
    GEOSTROPHIC,
    HYDROSTATIC,
    TENDENCIES,
    TENDENCY_SIZE,
    STATE_RMSE,
)
AT_STATIONS = (RMSE, BIAS, DEPARTURE_CHI_SQUARE)


@dataclass(frozen=True)
class Row:
    """One method in one scenario.

    Attributes:
        statistics: None where the method failed on every case.
        seconds: median over the cases, so that what is prepared once for all of them does not count.
        peak_mb: largest memory of the process, in which earlier rows may have left what they prepared.
        failures: messages.
    """

    statistics: Statistics | None
    seconds: float
    peak_mb: float
    failures: Sequence[str]


@dataclass(frozen=True)
class Results:
    """Scores and cost of every method of a suite.

    Attributes:
        suite: what was run.
        rows: by scenario, then by method.
        std: of each channel, for scores over all channels.
        cases: how many cases there are.
    """

    suite: Suite
    rows: Mapping[str, Mapping[str, Row]]
    std: np.ndarray[Any, np.dtype[np.float64]] | None
    cases: int

    def table(self, scenario: str) -> ScoreTable:
        """Scores of the methods that succeeded on at least one case."""
        found = {name: row.statistics for name, row in self.rows[scenario].items() if row.statistics is not None}
        return ScoreTable(found, self.suite.reference, self.std)

    def significance(self, scenario: str, name: str) -> float | None:
        """Probability of so large a difference in squared error from the reference if there were none.

        None for the reference itself and for fewer than three samples in common.
        """
        row, reference = (self.rows[scenario][n].statistics for n in (name, self.suite.reference))
        if name == self.suite.reference or row is None or reference is None:
            return None
        common = reference.common_samples(row)
        if len(common) < 3:
            return None
        scale = reference.means()["squared_error"] if self.std is None else self.std**2
        scale = np.where(np.isfinite(scale), scale, np.inf)  # a channel that nobody observed says nothing
        a, b = ((s.only(common).values["squared_error"] / scale).mean(axis=1) for s in (row, reference))
        return float(paired_difference(a, b).p)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``genda benchmark``."""
        rows = []
        for scenario, by_method in self.rows.items():
            scores = {row["method"]: row for row in self.table(scenario).to_dict()["rows"]}
            for name, row in by_method.items():
                rows.append(
                    {
                        "method": name,
                        "scenario": scenario,
                        "metrics": scores[name]["metrics"] if name in scores else {},
                        "samples": scores[name]["samples"] if name in scores else 0,
                        "ranks": {} if row.statistics is None else _ranks(row.statistics),
                        "p": self.significance(scenario, name),
                        "seconds": row.seconds,
                        "peak_mb": row.peak_mb,
                        "failed": list(row.failures),
                    }
                )
        return {"suite": self.suite.suite, "dates": self.cases, "reference": self.suite.reference, "rows": rows}

    def to_markdown(self) -> str:
        """Tables of ratio, scores and cost, one section for each scenario; of headline channels, or at stations of all."""
        at_stations = isinstance(self.suite, SoundingSuite)
        parts = []
        for scenario in self.rows:
            if scenario:
                parts.append(f"## {scenario}\n")
            table = self._named_table(scenario)
            shown = _by_variable(table.channels) if at_stations else _headlines(table.channels)
            for metric in (NMSE, RMSE, FORECAST_NMSE, FORECAST_RMSE):
                if metric in table.metrics():
                    parts += [
                        table.to_markdown(metric, c, relative=True) for c in (shown if metric.by_channel else [None])
                    ]
            for metric in AT_STATIONS if at_stations else METRICS:
                if metric in table.metrics():
                    have = ScoreTable({n: s for n, s in table.rows.items() if s.supports(metric)}, std=self.std)
                    parts += [have.to_markdown(metric, c) for c in (shown if metric.by_channel else [None])]
            parts.append(self._cost(scenario))
        return "\n".join(parts)

    def _named_table(self, scenario: str) -> ScoreTable:
        """The table with how many cases a row has, where it failed on some: its means are over others than its neighbours'."""
        names = {
            name: f"{name} ({self.cases - len(row.failures)} of {self.cases})" if row.failures else name
            for name, row in self.rows[scenario].items()
        }
        table = self.table(scenario)
        return ScoreTable({names[n]: s for n, s in table.rows.items()}, names[self.suite.reference], self.std)

    def _cost(self, scenario: str) -> str:
        lines = [
            f"| method | p against {self.suite.reference} | seconds a case | peak MB | failed |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, row in self.rows[scenario].items():
            p = self.significance(scenario, name)
            shown = "–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
            failed = f"{len(row.failures)} of {self.cases}"
            lines.append(f"| {name} | {shown} | {row.seconds:.1f} | {row.peak_mb:.0f} | {failed} |")
        failures = [
            (name, *reason) for name, row in self.rows[scenario].items() for reason in Counter(row.failures).items()
        ]
        lines += [""] * bool(failures) + [f"- {name}, {count} times: {reason}" for name, reason, count in failures]
        return "\n".join(lines) + "\n"


def read_results(suite: Suite, directory: Path, data: Path | None = None) -> Results:
    """The results of the finished pairs below a directory.

    Raises:
        FileNotFoundError: if a pair is not finished.
        FloatingPointError: if the reference failed on every case.
        ValueError: for a damaged file.
    """
    experiment = experiment_of(suite, data)
    grouped: dict[str, dict[str, list[Pair]]] = {}
    for pair in pairs(suite, directory, data):
        if not pair.file.exists():
            raise FileNotFoundError(f"{pair.file}: {pair.name} on case {pair.case} is not finished")
        grouped.setdefault(pair.scenario, {}).setdefault(pair.name, []).append(pair)
    rows = {
        scenario: {name: _row(mine, experiment.channels) for name, mine in by_method.items()}
        for scenario, by_method in grouped.items()
    }
    for scenario, by_method in rows.items():
        if by_method[suite.reference].statistics is None:
            where = f" in {scenario}" if scenario else ""
            reason = by_method[suite.reference].failures[0]
            raise FloatingPointError(
                f"suite {suite.suite}: the reference {suite.reference} failed on every case{where}: {reason}"
            )
    return Results(suite, rows, experiment.std, len(experiment.cases))


def _headlines(channels: Sequence[str]) -> list[list[str] | None]:
    """The columns of a table where there are too many channels for a page; all of other models."""
    return [[name for name in HEADLINE_CHANNELS if name in channels] or None]


def _by_variable(channels: Sequence[str]) -> list[list[str]]:
    """The columns of one table for each variable."""
    return [list(names) for _, names in groupby(channels, key=lambda name: channel(name).field.id)]


def _row(mine: Sequence[Pair], channels: tuple[str, ...]) -> Row:
    found = [read_pair(pair, channels) for pair in mine]
    succeeded = [statistics for statistics, _ in found if statistics is not None]
    merged = succeeded[0] if succeeded else None
    for statistics in succeeded[1:]:
        merged = statistics if merged is None else merged.merge(statistics)
    return Row(
        merged,
        float(np.median([record["seconds"] for _, record in found])),
        float(max(record["peak_mb"] for _, record in found)),
        [str(record["failure"]) for _, record in found if "failure" in record],
    )


def _ranks(statistics: Statistics) -> dict[str, list[float]]:
    """Rank histograms of the headline channels in units of a flat one; none of what is no ensemble."""
    histogram = statistics.means().get("rank_histogram")
    if histogram is None:
        return {}
    shown = [name for name in HEADLINE_CHANNELS if name in statistics.channels] or statistics.channels
    rows = {name: histogram[statistics.channels.index(name)] * histogram.shape[-1] for name in shown}
    return {name: [float(value) for value in row] for name, row in rows.items() if np.isfinite(row).all()}
