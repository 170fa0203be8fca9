"""The score table: methods in rows, channels in columns, mean ± standard error, ratio to a reference.

One :class:`ScoreTable` serves the demo, the report and the benchmarks. It holds statistics, not scores, so tables of
other dates merge exactly, and it writes itself as a JSON-able dict, Markdown or plain text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genda.variables import channel
from genda.verify.metrics import METRICS, MSE, Metric
from genda.verify.scores import Array
from genda.verify.statistics import Estimate, Statistics, estimate, ratio


@dataclass(frozen=True)
class ScoreTable:
    """Scores of several methods over the same samples.

    Attributes:
        rows: method to its statistics, in the order of the table.
        reference: the row that ratios refer to, such as the background; None for no ratios.
        std: standard deviation per channel (channel,) for normalised scores, physical units; None leaves them out.
    """

    rows: Mapping[str, Statistics]
    reference: str | None = None
    std: Array | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("score table: found no rows, expected at least one method")
        if self.reference is not None and self.reference not in self.rows:
            raise ValueError(f"reference: found {self.reference!r}, expected one of {', '.join(self.rows)}")
        for name, row in self.rows.items():
            if row.channels != self.channels:
                found, expected = ", ".join(row.channels), ", ".join(self.channels)
                raise ValueError(f"row {name!r}: found channels {found}, expected {expected}")
        if self.std is not None and self.std.shape != (len(self.channels),):
            raise ValueError(f"std: found shape {self.std.shape}, expected ({len(self.channels)},)")

    @property
    def channels(self) -> tuple[str, ...]:
        return next(iter(self.rows.values())).channels

    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that at least one row can be scored with."""
        return tuple(
            m
            for m in METRICS.values()
            if any(row.supports(m) for row in self.rows.values()) and not (m.normalised and self.std is None)
        )

    def columns(self, metric: Metric) -> tuple[str, ...]:
        return metric.columns(self.channels)

    def score(self, row: str, metric: Metric) -> Estimate | None:
        """The metric of a row; None where the row lacks the statistic (the spread of a single field)."""
        statistics = self.rows[row]
        return estimate(statistics, metric, self.std) if statistics.supports(metric) else None

    def ratio(self, row: str, metric: Metric) -> Estimate | None:
        """The metric over the reference row's on the same samples; None without a reference, a common sample or statistic.

        Samples that one of the two lacks, because the method failed there, are left out of both.
        """
        if self.reference is None:
            return None
        statistics, reference = self.rows[row], self.rows[self.reference]
        if not (statistics.supports(metric) and reference.supports(metric)):
            return None
        if statistics.samples != reference.samples:
            common = statistics.common_samples(reference)
            if not common:
                return None
            statistics, reference = statistics.only(common), reference.only(common)
        return ratio(statistics, reference, metric, self.std)

    def merge(self, other: ScoreTable) -> ScoreTable:
        """The table over the samples of both, for rows of the same names."""
        if list(self.rows) != list(other.rows):
            raise ValueError(f"rows: found {', '.join(other.rows)}, expected {', '.join(self.rows)}")
        rows = {name: row.merge(other.rows[name]) for name, row in self.rows.items()}
        return ScoreTable(rows, self.reference, self.std)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able ``{"reference": …, "rows": [{"method": …, "samples": n, "metrics": {"rmse": {"z500": {…}}}}]}``.

        A cell holds mean and stderr, and with a reference ratio and ratio_stderr; None where undefined. Scores over all
        channels stand under "all", those of levels and layers under their pressures. The cell of a score that sums up a
        histogram holds that as well.
        """
        rows = []
        for name, statistics in self.rows.items():
            metrics: dict[str, dict[str, dict[str, Any]]] = {}
            for metric in self.metrics():
                score, relative = self.score(name, metric), self.ratio(name, metric)
                if score is None:
                    continue
                whole = statistics.means()[metric.whole] if metric.whole else None
                cells: dict[str, dict[str, Any]] = {}
                for i, column in enumerate(self.columns(metric)):
                    cell: dict[str, Any] = {"mean": _number(score.mean[i]), "stderr": _number(score.stderr[i])}
                    if relative is not None:
                        cell |= {"ratio": _number(relative.mean[i]), "ratio_stderr": _number(relative.stderr[i])}
                    if metric.whole and whole is not None:
                        cell[metric.whole] = [_number(value) for value in whole[i]]
                    cells[column] = cell
                metrics[metric.name] = cells
            rows.append({"method": name, "samples": len(statistics.samples), "metrics": metrics})
        return {"reference": self.reference, "rows": rows}

    def cells(self, metric: Metric, columns: Sequence[str] | None = None, relative: bool = False) -> list[list[str]]:
        """Formatted text: a header row, then one row per method; of scores by channel, the columns asked for and present."""
        wanted = columns if columns and metric.by_channel else self.columns(metric)
        shown = [c for c in wanted if c in self.columns(metric)]
        index = [self.columns(metric).index(c) for c in shown]
        head = [metric.title if not relative else f"{metric.title} / {self.reference}"]
        if metric.dimensional and not relative:
            head += [f"{c} [{u}]" if (u := _units(c, squared=metric is MSE)) else c for c in shown]
        else:
            head += shown
        out = [head]
        for name in self.rows:
            value = self.ratio(name, metric) if relative else self.score(name, metric)
            text = ["–" if value is None else format_estimate(value.mean[i], value.stderr[i]) for i in index]
            out.append([name, *text])
        return out

    def to_markdown(self, metric: Metric, columns: Sequence[str] | None = None, relative: bool = False) -> str:
        """A Markdown table of one metric."""
        head, *body = self.cells(metric, columns, relative)
        rule = ["---", *["---:"] * (len(head) - 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body)) + "\n"

    def to_text(self, metric: Metric, columns: Sequence[str] | None = None, relative: bool = False) -> str:
        """A plain-text table of one metric."""
        return _aligned(self.cells(metric, columns, relative))

    def by_channel(self, name: str, metrics: Sequence[Metric]) -> str:
        """One row of the table in plain text, channels down and those metrics across that it has by channel."""
        shown = [m for m in metrics if self.rows[name].supports(m) and m.by_channel]
        columns = [self.cells(metric) for metric in shown]
        row = list(self.rows).index(name) + 1
        lines = [["", *[metric.title for metric in shown], "units"]]
        for i, channel_id in enumerate(self.channels):
            lines.append([channel_id, *[cells[row][i + 1] for cells in columns], _units(channel_id)])
        return _aligned(lines)


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    sides = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    rows = ("  ".join(s(c, w) for s, c, w in zip(sides, line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(rows) + "\n"


def format_estimate(mean: float, stderr: float) -> str:
    """``0.4321 ± 0.0056``: two digits of the error and the mean to match; four digits of the mean without an error."""
    if not math.isfinite(mean):
        return "–"
    if not math.isfinite(stderr) or stderr == 0:
        return f"{mean:#.4g}".rstrip(".") if 1e-3 <= abs(mean) < 1e5 or mean == 0 else f"{mean:.3e}"
    size = max(abs(mean), stderr)
    decimals = 1 - math.floor(math.log10(stderr))
    if not 1e-3 <= size < 1e5:
        digits = min(max(0, decimals + math.floor(math.log10(abs(mean) or stderr))), 3)
        return f"{mean:.{digits}e} ± {stderr:.1e}"
    decimals = min(max(0, decimals), max(0, 4 - math.floor(math.log10(size))))
    return f"{round(mean, decimals) + 0.0:.{decimals}f} ± {stderr:.{decimals}f}"  # no minus before a zero


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _units(name: str, squared: bool = False) -> str:
    try:
        units = channel(name).field.units
    except ValueError:  # a toy model's variable has no units
        return ""
    return f"({units})2" if squared else units
