"""The report's HTML tables: scores, withheld stations, observation counts, settings."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from genda.report.case import ANALYSIS, ReportCase
from genda.report.style import display_units, squared_units
from genda.variables import channel
from genda.verify.metrics import BIAS, CRPS, MSE, NMSE, POOLED, RMSE, SPREAD_SKILL, Metric
from genda.verify.stations import level_bins, station_statistics
from genda.verify.table import ScoreTable, format_estimate

_SUMMARY = (RMSE, CRPS, SPREAD_SKILL, NMSE)


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", text: bool = False) -> str:
    """A table whose first column heads its rows; cells are escaped."""
    cell = '<td class="text">' if text else "<td>"
    caption = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    top = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"{cell}{html.escape(c)}</td>" for c in row[1:])
        + "</tr>"
        for row in rows
    )
    header = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f'<div class="scroll" tabindex="0"><table>{caption}{header}<tbody>{body}</tbody></table></div>'


def _cell(table: ScoreTable, row: str, metric: Metric, column: str, relative: bool = False) -> str:
    value = table.ratio(row, metric) if relative else table.score(row, metric)
    if value is None:
        return "–"
    i = table.columns(metric).index(column)
    factor = 1.0
    if metric.dimensional and not relative and column != POOLED:
        factor = display_units(column)[0] ** (2 if metric is MSE else 1)
    return format_estimate(float(value.mean[i]) * factor, float(value.stderr[i]) * factor)


def _heading(metric: Metric, column: str) -> str:
    if not metric.dimensional or column == POOLED:
        return column
    units = display_units(column)[1]
    return f"{column} [{squared_units(units) if metric is MSE else units}]"


def summary(case: ReportCase, table: ScoreTable) -> str:
    """RMSE, its ratio, CRPS and spread/skill of the displayed channels, methods in rows."""
    columns = [c for c in case.displayed if c in table.channels]
    count = max(len(row.samples) for row in table.rows.values())
    over = f"mean ± standard error over {count} dates" if count > 1 else "one date"
    parts = [
        f"<p>Area-weighted, {over}. Errors of an ensemble are those of its mean; the CRPS of a single field is its "
        "mean absolute error.</p>"
    ]
    for metric in _SUMMARY:
        if metric not in table.metrics():
            continue
        shown = [POOLED] if metric.pooled else columns
        rows = [[name, *(_cell(table, name, metric, c) for c in shown)] for name in table.rows]
        if metric is SPREAD_SKILL:  # a single field has no spread: leave its row of dashes out
            rows = [row for row in rows if any(c != "–" for c in row[1:])]
        parts.append(html_table([metric.title, *(_heading(metric, c) for c in shown)], rows))
    if table.reference is not None:
        others = [name for name in table.rows if name != table.reference]
        rows = [[name, *(_cell(table, name, RMSE, c, relative=True) for c in columns)] for name in others]
        parts.insert(2, html_table([f"RMSE / {table.reference}", *columns], rows))
    return "".join(parts)


def every_score(table: ScoreTable) -> str:
    """Every metric and channel, channels in rows, folded away."""
    parts = []
    for metric in table.metrics():
        shown = [name for name, row in table.rows.items() if row.supports(metric)]
        rows = [
            [_heading(metric, c), *(_cell(table, name, metric, c) for name in shown)] for c in table.columns(metric)
        ]
        parts.append(
            f"<details><summary>{html.escape(metric.title)}</summary>{html_table(['channel', *shown], rows)}</details>"
        )
    return "".join(parts)


def withheld(case: ReportCase) -> str:
    """Departures at withheld stations, background and analysis; nothing where there is none to score."""
    table = case.withheld
    if table is None or table.empty or "hx_a" not in table.columns:
        return ""
    levels = [level for name in case.channels if (level := channel(name).level_hpa) is not None]
    bins = level_bins(levels) if levels else ()
    try:
        rows = {ANALYSIS: station_statistics(table, "hx_a", bins=bins)}
        if "hx_b" in table.columns and np.isfinite(table["hx_b"].astype(float)).any():
            rows = {case.background_name: station_statistics(table, "hx_b", bins=bins)} | rows
    except ValueError:
        return "<p>No withheld observation passed quality control.</p>"
    scores = ScoreTable(rows, case.background_name if len(rows) > 1 else None)
    head = ["channel", "N", *(f"RMSE {name}" for name in rows), *(f"bias {name}" for name in rows)]
    head += ["RMSE ratio"] if len(rows) > 1 else []
    body = []
    for i, name in enumerate(scores.channels):
        line = [_heading(RMSE, name), f"{int(rows['analysis'].weight[:, i].sum()):,}"]
        line += [_cell(scores, row, metric, name) for metric in (RMSE, BIAS) for row in rows]
        line += [_cell(scores, ANALYSIS, RMSE, name, relative=True)] if len(rows) > 1 else []
        body.append(line)
    stations = len(rows[ANALYSIS].samples)
    caption = (
        f"Withheld stations ({stations}): model equivalent minus observation, ± standard error over stations. "
        "The observations' own error is part of every number."
    )
    return html_table(head, body, caption)


def observation_counts(case: ReportCase) -> str:
    """Observations by variable and quality flag, and the departures of the assimilated ones."""
    table = case.observations
    if table is None:
        return ""
    flags = sorted(int(f) for f in table["quality"].unique())
    head = ["variable", *(case.flag_names.get(f, f"flag {f}") for f in flags), "total"]
    counts = table.groupby(["variable", "quality"]).size().unstack(fill_value=0)
    rows = [
        [str(name), *(f"{n:,}" for n in line), f"{line.sum():,}"]
        for name, line in zip(counts.index, counts[flags].to_numpy(), strict=True)
    ]
    rows.append(["all", *(f"{n:,}" for n in counts[flags].to_numpy().sum(axis=0)), f"{len(table):,}"])
    sources = ", ".join(f"{s} {n:,}" for s, n in table["source"].value_counts().items())
    places = len(table[["latitude", "longitude"]].drop_duplicates())
    caption = f"Values by quality flag; {places:,} places; sources: {sources}."
    return html_table(head, rows, caption)


def mapping(values: Mapping[str, object]) -> str:
    """Names and values; nested mappings with dotted names."""
    return html_table([], [[name, text] for name, text in _flat(values)], text=True)


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", f"{value:g}" if isinstance(value, float) else str(value)


def timings(seconds: Mapping[str, float]) -> str:
    rows = [[name, f"{value:.2f} s"] for name, value in seconds.items()]
    return html_table(["stage", "time"], rows)
