"""The picture of a benchmark: how each method's error compares with the reference's, by channel or by scenario.

It is drawn from the JSON document of ``genda benchmark`` alone, so that finished tables can be drawn again.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from scipy.stats import t as student

from genda.report.style import (
    ANALYSIS_COLOUR,
    BACKGROUND_COLOUR,
    BASELINE_COLOURS,
    BASELINE_MARKERS,
    TRUTH_COLOUR,
    display_units,
    new_figure,
    style,
)
from genda.variables import HEADLINE_CHANNELS
from genda.verify.scores import Array

CONFIDENCE = 0.95
"""Of the intervals drawn as whiskers."""
MOST_COLUMNS = 5
FAR = 3.0
"""Methods this many times worse than the reference in every scenario are named, not drawn: a line for each would press
the others together."""
BELOW = 10.0
"""So are those that are everywhere this many times better than all others: no method is, but what bounds them."""
_NAME_WIDTH = 26  # characters of a method's name on one line
_LABEL_SIZE = 8.5  # points, as names beside an axis
_WORSE_COLOUR = BASELINE_COLOURS[0]
_COLOURS = (ANALYSIS_COLOUR, *BASELINE_COLOURS, TRUTH_COLOUR)
_MARKERS = ("o", *BASELINE_MARKERS, "X")
_LINES = ("-", "--", ":", "-.")


def benchmark_figure(document: Mapping[str, Any]) -> Figure:
    """Draw the document of a benchmark.

    Of one scenario, a panel for each headline channel (or toy variable) with a dot for each method: RMSE over the reference's.
    Of several, the normalised MSE over the reference's against the scenario, a line for each method.

    Args:
        document: ``{"suite", "dates", "reference", "rows": [{"method", "scenario", "metrics": {"rmse": {channel: {"mean",
            "ratio", "ratio_stderr", …}}, …}, …}, …]}``; ``scenario`` may be left out.

    Raises:
        ValueError: where no row can be compared with the reference.
    """
    rows = [row for row in document["rows"] if row["method"] != document["reference"]]
    scenarios = list(dict.fromkeys(row.get("scenario") for row in document["rows"]))
    if not comparable(document):
        found, reference = document["suite"], document["reference"]
        raise ValueError(f"benchmark {found}: found no score relative to {reference}, expected one of another method")
    with style():
        return _by_channel(document, rows) if len(scenarios) < 2 else _by_scenario(document, rows, scenarios)


def comparable(document: Mapping[str, Any]) -> bool:
    """Whether any method but the reference has a score relative to it: else there is nothing to draw."""
    rows = [row for row in document["rows"] if row["method"] != document["reference"]]
    return any(_cell(row, "rmse", name) for row in rows for name in _channels(rows))


def _by_channel(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    channels = _channels(rows)
    columns = min(MOST_COLUMNS, len(channels))
    lines = -(-len(channels) // columns)
    names = [textwrap.fill(row["method"], _NAME_WIDTH) for row in rows]
    margin = 0.25 + _inches(names)
    each = 1.45 if columns > 2 else 2.6
    spaces = np.array([1 + 0.75 * name.count("\n") for name in names])  # rows as high as their names
    heights = np.cumsum(spaces) - spaces / 2
    height = 0.2 * spaces.sum()
    width, panel = margin + columns * each + 0.15, height + 0.72
    total = lines * panel + 0.62
    figure = new_figure(width, total)
    limits = _limits(rows, channels)
    for k, channel in enumerate(channels):
        line, column = divmod(k, columns)
        left, bottom = margin + column * each, total - 0.62 - (line + 1) * panel + 0.4
        ax = figure.add_axes((left / width, bottom / total, (each - 0.16) / width, height / total))
        _panel(ax, rows, heights, channel, limits)
        ax.set_ylim(spaces.sum(), 0)
        ax.set_yticks(heights, names if column == 0 else [""] * len(rows))
        ax.set_title(channel, loc="left", fontsize=9, pad=13)
        ax.text(0, 1.015, _unit(document, channel), transform=ax.transAxes, fontsize=7, color="#444444", va="bottom")
    reference, count = document["reference"], document["dates"]
    figure.text(0.08 / width, 1 - 0.08 / total, _title(document), fontsize=10, va="top")
    note = f"RMSE / RMSE of {reference}: left of the line is better. {_whiskers(count)}"
    note += " Hollow: no clear difference." if count > 1 else ""
    note = textwrap.fill(note, max(30, int((width - 0.2) / 0.066)))
    figure.text(0.08 / width, 1 - 0.27 / total, note, fontsize=8, va="top", linespacing=1.15)
    return figure


def _inches(names: Sequence[str]) -> float:
    """Width of the longest line as axis labels are written."""
    lines = [line for name in names for line in name.splitlines()]
    return max(float(TextPath((0, 0), line, size=_LABEL_SIZE).get_extents().width) for line in lines) / 72


def _panel(
    ax: Axes, rows: Sequence[Mapping[str, Any]], heights: Array, channel: str, limits: tuple[float, float]
) -> None:
    low, high = limits
    ax.axvline(1.0, color=BACKGROUND_COLOUR, linewidth=0.9)
    ax.set_xlim(low, high)
    _scale(ax, low, high)
    for y, row in zip(heights, rows, strict=True):
        cell = _cell(row, "rmse", channel)
        if cell is None:
            text = "failed" if row.get("failed") and not row["metrics"] else "–"
            ax.text(
                0.5, y, text, transform=ax.get_yaxis_transform(), ha="center", va="center", color="#444444", fontsize=7
            )
            continue
        ratio, error = cell
        clear = abs(ratio - 1) > error
        colour = (ANALYSIS_COLOUR if ratio < 1 else _WORSE_COLOUR) if clear else BACKGROUND_COLOUR
        marker, face = ("o" if ratio < 1 else "D", colour) if clear else ("o", "white")
        ax.errorbar(
            ratio, y, xerr=error or None, fmt=marker, color=colour, mfc=face, ms=4.5, lw=1.1, capsize=0, zorder=3
        )
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color="#000000", alpha=0.08, linewidth=0.6)


def _by_scenario(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], scenarios: Sequence[Any]) -> Figure:
    metric, column, words = _quantity(rows)
    worse, better = _far(rows, metric, column)
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name not in (*worse, *better)]
    names = [textwrap.fill(name, _NAME_WIDTH) for name in methods]
    side = 0.75 + _inches(names)
    each = max(0.75, 0.15 + _inches([str(scenario) for scenario in scenarios]))
    width = 0.6 + max(3.4, each * len(scenarios)) + side
    height = max(3.2, 0.75 + 0.16 * sum(1 + name.count("\n") for name in names))
    figure = new_figure(width, height)
    ax: Axes = figure.add_axes((0.6 / width, 0.5 / height, 1 - (0.6 + side) / width, 1 - 1.22 / height))
    ax.axhline(1.0, color=BACKGROUND_COLOUR, linewidth=0.9)
    values = []
    for j, (method, name) in enumerate(zip(methods, names, strict=True)):
        shift = (j - (len(methods) - 1) / 2) * min(0.05, 0.4 / len(methods))
        points = []
        for row in rows:
            cell = _cell(row, metric, column) if row["method"] == method else None
            if cell is not None:
                points.append((scenarios.index(row.get("scenario")) + shift, *cell))
        if not points:
            ax.plot([], [], " ", label=f"{name} (failed)")
            continue
        x, y, error = np.array(sorted(points)).T
        turn = j // len(_COLOURS)  # beyond the colours, other markers and lines
        look: Any = {"color": _COLOURS[j % len(_COLOURS)], "marker": _MARKERS[(j + turn) % len(_MARKERS)]}
        ax.errorbar(x, y, yerr=error, linestyle=_LINES[turn % len(_LINES)], ms=4, lw=1.1, label=name, **look)
        values += [*(y - error), *(y + error)]
    low, high = _padded(min(values), max(values))
    ax.set_ylim(low, high)
    _scale(ax, low, high, vertical=True)
    ax.set_xticks(range(len(scenarios)), [str(scenario) for scenario in scenarios])
    ax.set_xlim(-0.4, len(scenarios) - 0.6)
    ax.set_xlabel("scenario")
    ax.set_ylabel(f"{words} / reference's")
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(1 - (side - 0.1) / width, 1 - 0.65 / height),
        handlelength=3.2,
        labelspacing=0.6,
    )
    figure.text(0.08 / width, 1 - 0.08 / height, _title(document), fontsize=10, va="top")
    notes = [f"Below the line is better than the reference, {document['reference']}. {_whiskers(document['dates'])}"]
    if worse:
        notes += [f"Not drawn, more than {FAR:g} times the reference's: {', '.join(worse)}."]
    if better:
        notes += [f"Not drawn, less than 1/{BELOW:g} of every other's: {', '.join(better)}."]
    note = "\n".join(textwrap.fill(line, max(30, int((width - 0.2) / 0.062))) for line in notes)
    figure.text(0.08 / width, 1 - 0.27 / height, note, fontsize=8, va="top", linespacing=1.15)
    return figure


def _far(rows: Sequence[Mapping[str, Any]], metric: str, column: str) -> tuple[list[str], list[str]]:
    """Methods far worse than the reference, and far better than all others, in every scenario; none where all are worse."""
    ratios: dict[str, dict[Any, float]] = {}
    for row in rows:
        cell = _cell(row, metric, column)
        if cell is not None:
            ratios.setdefault(row["method"], {})[row.get("scenario")] = cell[0]
    worse = [name for name, found in ratios.items() if min(found.values()) > FAR]
    drawn = {name: found for name, found in ratios.items() if name not in worse}
    if not drawn:
        return [], []
    scenarios = {scenario for found in drawn.values() for scenario in found}
    lowest = sorted(min(found.values()) for found in drawn.values())[1:2]
    better = [
        name
        for name, found in drawn.items()
        if lowest and BELOW * max(found.values()) < lowest[0] and set(found) == scenarios
    ]
    return worse, better


def _channels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The headline channels that any row has, else the first of those there are."""
    found = list(dict.fromkeys(name for row in rows for name in row["metrics"].get("rmse", {})))
    return [name for name in HEADLINE_CHANNELS if name in found] or found[: len(HEADLINE_CHANNELS)]


def _quantity(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Metric, column and words of what a line shows: the error over all channels, else that of the first channel."""
    if any(_cell(row, "nmse", "all") for row in rows):
        return "nmse", "all", "normalised MSE"
    channel = next(name for name in _channels(rows) if any(_cell(row, "rmse", name) for row in rows))
    return "rmse", channel, f"RMSE of {channel}"


def _cell(row: Mapping[str, Any], metric: str, column: str) -> tuple[float, float] | None:
    """Ratio to the reference and half the length of its whisker, 0 where unknown."""
    cell = row["metrics"].get(metric, {}).get(column, {})
    if cell.get("ratio") is None:
        return None
    return float(cell["ratio"]), _half_width(row.get("samples")) * float(cell.get("ratio_stderr") or 0.0)


def _half_width(samples: int | None) -> float:
    """Of the interval, in standard errors estimated from so many samples (Student); many where the number is not known."""
    freedom = math.inf if samples is None else max(1, samples - 1)
    return float(student.ppf((1 + CONFIDENCE) / 2, freedom))


def _limits(rows: Sequence[Mapping[str, Any]], channels: Sequence[str]) -> tuple[float, float]:
    """Common limits of all panels."""
    cells = [cell for row in rows for name in channels if (cell := _cell(row, "rmse", name)) is not None]
    return _padded(min(ratio - error for ratio, error in cells), max(ratio + error for ratio, error in cells))


def _padded(low: float, high: float) -> tuple[float, float]:
    """Limits that hold 1, with a margin; of a range beyond a factor of four, for a logarithmic axis."""
    low, high = min(low, 1.0), max(high, 1.0)
    if low > 0 and high > 4 * low:
        margin = (high / low) ** 0.06
        return low / margin, high * margin
    margin = 0.06 * (high - low) or 0.1
    return max(0.0, low - margin), high + margin


def _scale(ax: Axes, low: float, high: float, vertical: bool = False) -> None:
    axis = ax.yaxis if vertical else ax.xaxis
    if low > 0 and high > 4 * low:
        (ax.set_yscale if vertical else ax.set_xscale)("log")
        wide = high > 10 * low or not vertical  # a short axis that is high has room for more
        steps = ((1, 2, 5) if wide else (1, 2, 3, 4, 5, 7)) if high < 60 * low else (1,)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**k for k in decades for step in steps]
        axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(8 if vertical else 4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _unit(document: Mapping[str, Any], channel: str) -> str:
    """What a ratio of 1 means: the reference's RMSE with its units."""
    for row in document["rows"]:
        mean = row["metrics"].get("rmse", {}).get(channel, {}).get("mean")
        if row["method"] == document["reference"] and mean is not None:
            try:
                scale, units = display_units(channel)
            except ValueError:  # a toy model's variable has none
                scale, units = 1.0, ""
            value = f"{mean * scale:#.3g}".rstrip(".")
            return f"1 = {value} {units}".rstrip()
    return ""


def _title(document: Mapping[str, Any]) -> str:
    return f"Benchmark {document['suite']}"


def _whiskers(count: int) -> str:
    if count < 2:
        return "One case, no intervals."
    return f"Whiskers: {100 * CONFIDENCE:g} % intervals, {count} case{'' if count == 1 else 's'}."
