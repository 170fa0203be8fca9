"""The table of a finished suite: scores with standard errors, ratios and significance against a reference, cost, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genda.benchmark.runner import Pair, pairs, read_pair
from genda.benchmark.suite import Suite
from genda.benchmark.toys import ToyExperiment
from genda.verify import RMSE, SPREAD_SKILL, Metric, ScoreTable, Statistics, paired_difference

METRICS = (RMSE, SPREAD_SKILL)


@dataclass(frozen=True)
class Results:
    """Scores and cost of every method of a suite.

    Attributes:
        suite: what was run.
        table: rows of the methods that succeeded on at least one case.
        seconds, peak_mb: mean and largest over the cases, by method.
        failures: messages by method.
        cases: how many cases there are.
    """

    suite: Suite
    table: ScoreTable
    seconds: Mapping[str, float]
    peak_mb: Mapping[str, float]
    failures: Mapping[str, Sequence[str]]
    cases: int

    def significance(self, name: str) -> float | None:
        """Probability of so large a difference in squared error from the reference if there were none; None without it."""
        row, reference = self.table.rows[name], self.table.rows[self.suite.reference]
        if name == self.suite.reference or row.samples != reference.samples or len(row.samples) < 3:
            return None
        scale = reference.means()["squared_error"]
        a, b = ((s.values["squared_error"] / scale).mean(axis=1) for s in (row, reference))
        return float(paired_difference(a, b).p)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``genda benchmark``."""
        scores = {row["method"]: row for row in self.table.to_dict()["rows"]}
        rows = [
            {
                "method": name,
                "metrics": scores[name]["metrics"] if name in scores else {},
                "samples": scores[name]["samples"] if name in scores else 0,
                "p": self.significance(name) if name in scores else None,
                "seconds": self.seconds[name],
                "peak_mb": self.peak_mb[name],
                "failed": list(self.failures.get(name, ())),
            }
            for name in self.suite.methods
        ]
        return {"suite": self.suite.suite, "dates": self.cases, "reference": self.suite.reference, "rows": rows}

    def to_markdown(self, metrics: Sequence[Metric] = METRICS) -> str:
        """Tables of ratio, scores and cost."""
        parts = [self.table.to_markdown(RMSE, relative=True)]
        parts += [
            self.table.to_markdown(metric)
            for metric in metrics
            if any(row.supports(metric) for row in self.table.rows.values())
        ]
        return "\n".join([*parts, self._cost()])

    def _cost(self) -> str:
        lines = [
            f"| method | p against {self.suite.reference} | seconds a case | peak MB | failed |",
            "|---|---:|---:|---:|---:|",
        ]
        for name in self.suite.methods:
            p = self.significance(name) if name in self.table.rows else None
            shown = "–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
            failed = f"{len(self.failures.get(name, ()))} of {self.cases}"
            lines.append(f"| {name} | {shown} | {self.seconds[name]:.1f} | {self.peak_mb[name]:.0f} | {failed} |")
        return "\n".join(lines) + "\n"


def read_results(suite: Suite, directory: Path) -> Results:
    """The results of the finished pairs below a directory.

    Raises:
        FileNotFoundError: if a pair is not finished.
        ValueError: if the reference failed on every case.
    """
    experiment = ToyExperiment(suite)
    by_method: dict[str, list[Pair]] = {name: [] for name in suite.methods}
    for pair in pairs(suite, directory):
        if not pair.file.exists():
            raise FileNotFoundError(f"{pair.file}: {pair.name} on case {pair.case} is not finished")
        by_method[pair.name].append(pair)
    rows: dict[str, Statistics] = {}
    seconds, peak, failures = {}, {}, {}
    for name, mine in by_method.items():
        found = [read_pair(pair, experiment.channels) for pair in mine]
        seconds[name] = float(np.mean([record["seconds"] for _, record in found]))
        peak[name] = float(max(record["peak_mb"] for _, record in found))
        failures[name] = [str(record["failure"]) for _, record in found if "failure" in record]
        for statistics, _ in found:
            if statistics is not None:
                rows[name] = rows[name].merge(statistics) if name in rows else statistics
    if suite.reference not in rows:
        raise ValueError(f"suite {suite.suite}: the reference {suite.reference} failed on every case")
    return Results(suite, ScoreTable(rows, suite.reference), seconds, peak, failures, len(experiment.cases()))
