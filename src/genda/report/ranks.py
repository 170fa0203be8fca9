"""Rank histograms of a benchmark's ensembles, from its JSON document alone: a panel for each method and scenario."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genda.report.style import ANALYSIS_COLOUR, BACKGROUND_COLOUR, new_figure, style

_PANEL, _LEFT, _TOP, _BOTTOM, _LABEL = (1.5, 1.05), 1.75, 0.78, 0.5, 2.1  # inches


def ranks_figure(document: Mapping[str, Any]) -> Figure:
    """Draw how often the truth has each rank among the members, in units of what is expected of a calibrated ensemble.

    Ensembles of any size share an axis, the share of members below the truth. Thin lines are the channels of the document, the
    thick one their mean; panels of one method share their height.

    Args:
        document: as of :func:`genda.report.benchmark.benchmark_figure`, with ``"ranks": {channel: [frequency / uniform, …]}`` in
            the rows of ensembles.

    Raises:
        ValueError: where no row is an ensemble.
    """
    rows = [row for row in document["rows"] if row.get("ranks")]
    if not rows:
        raise ValueError(f"benchmark {document['suite']}: found no ensemble, expected one for its rank histogram")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    scenarios = list(dict.fromkeys(row.get("scenario") for row in rows))
    width = _LEFT + len(scenarios) * _PANEL[0] + 0.1
    height = _TOP + len(methods) * _PANEL[1] + _BOTTOM
    with style():
        figure = new_figure(width, height)
        figure.text(0.08 / width, 1 - 0.08 / height, f"Rank histograms, {document['suite']}", fontsize=10, va="top")
        note = "Flat at 1: the truth is like one more member. High at the ends: too little spread; low: too much."
        note = textwrap.fill(note, max(30, int((width - 0.2) / 0.062)))
        figure.text(0.08 / width, 1 - 0.27 / height, note, fontsize=8, va="top", linespacing=1.15)
        for j, method in enumerate(methods):
            _line(figure, (width, height), j, method, scenarios, [row for row in rows if row["method"] == method])
        middle = min(_LEFT + len(scenarios) * _PANEL[0] / 2, width - _LABEL / 2) / width
        figure.text(middle, 0.06 / height, "share of members below the truth", ha="center", va="bottom", fontsize=8.5)
    return figure


def _line(
    figure: Figure,
    size: tuple[float, float],
    j: int,
    method: str,
    scenarios: Sequence[Any],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    width, height = size
    found = {row.get("scenario"): np.array(list(row["ranks"].values())) for row in rows}
    highest = max(1.6, 1.08 * max(float(np.nanmax(values)) for values in found.values()))
    bottom = height - _TOP - (j + 1) * _PANEL[1] + 0.12
    for i, scenario in enumerate(scenarios):
        box = (_LEFT + i * _PANEL[0], bottom, _PANEL[0] - 0.14, _PANEL[1] - 0.24)
        ax: Axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        ax.axhline(1.0, color=BACKGROUND_COLOUR, linewidth=0.8)
        if scenario in found:
            values = found[scenario]
            edges = np.linspace(0, 1, values.shape[1] + 1)
            for channel in values:
                ax.stairs(channel, edges, baseline=None, color=ANALYSIS_COLOUR, alpha=0.3, linewidth=0.6)
            ax.stairs(values.mean(axis=0), edges, baseline=None, color=ANALYSIS_COLOUR, linewidth=1.6)
        else:
            ax.text(0.5, 0.5, "–", transform=ax.transAxes, ha="center", va="center", color=BACKGROUND_COLOUR)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, highest)
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        if j == 0 and scenario is not None:
            ax.set_title(str(scenario), loc="left", fontsize=8.5)
        if i:
            ax.set_yticklabels([])
    name = textwrap.fill(method, 22)
    figure.text(0.08 / width, (bottom + (_PANEL[1] - 0.24) / 2) / height, name, fontsize=8.5, va="center")
