"""Figures of merit drawn: errors relative to a reference, spread against skill, rank histograms."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genda.report.case import ANALYSIS, ReportCase
from genda.report.style import (
    ANALYSIS_COLOUR,
    BACKGROUND_COLOUR,
    BASELINE_COLOURS,
    BASELINE_MARKERS,
    Picture,
    finish,
    label,
    new_figure,
)
from genda.verify.ensemble import rank_histogram
from genda.verify.metrics import RMSE, SPREAD_SKILL
from genda.verify.scores import Array
from genda.verify.table import ScoreTable


def comparison_picture(table: ScoreTable) -> Picture | None:
    """RMSE of every method relative to the reference, per channel; None without a reference."""
    others = [name for name in table.rows if name != table.reference]
    if table.reference is None or not others:
        return None
    figure, ax = _channel_axes(table.channels)
    for j, name in enumerate(others):
        ratio = table.ratio(name, RMSE)
        if ratio is None:
            continue
        colour, marker = _look(name, j)
        offset = (j - (len(others) - 1) / 2) * 0.12
        _dots(ax, ratio.mean, ratio.stderr, offset, colour, marker, name)
    ax.axhline(1.0, color=BACKGROUND_COLOUR, linewidth=0.9)
    ax.set_ylabel(f"RMSE / RMSE of {table.reference}")
    ax.set_ylim(bottom=0)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.1)
    alt = f"RMSE relative to {table.reference} per channel for {', '.join(others)}; below one is better."
    return finish(figure, alt, f"RMSE relative to {table.reference}")


def spread_skill_picture(table: ScoreTable) -> Picture | None:
    """Spread / skill per channel of every ensemble; None where no row is one."""
    estimates = {name: table.score(name, SPREAD_SKILL) for name in table.rows}
    present = {name: e for name, e in estimates.items() if e is not None}
    if not present:
        return None
    figure, ax = _channel_axes(table.channels)
    ax.axhspan(0.8, 1.25, color="#000000", alpha=0.08, lw=0)
    ax.axhline(1.0, color="#000000", linewidth=0.8)
    for j, (name, e) in enumerate(present.items()):
        colour, marker = _look(name, j)
        _dots(ax, e.mean, e.stderr, (j - (len(present) - 1) / 2) * 0.12, colour, marker, name)
    ax.set_ylabel("spread / RMSE of the mean")
    ax.set_ylim(0, max(1.5, 1.1 * max(float(np.nanmax(e.mean)) for e in present.values())))
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.1)
    alt = "Spread divided by skill per channel; one is calibrated, below one over-confident. " + "; ".join(
        f"{name}: {np.nanmin(e.mean):.2f} to {np.nanmax(e.mean):.2f}" for name, e in present.items()
    )
    return finish(figure, alt, "Spread / skill")


def rank_picture(case: ReportCase) -> Picture | None:
    """Rank of the truth among the members for the displayed channels; None without a truth or an ensemble."""
    if case.truth is None or len(case.members) < 2:
        return None
    index = [case.index(name) for name in case.displayed]
    members, truth = torch.as_tensor(case.members[:, index]), torch.as_tensor(case.truth[index])
    frequency = rank_histogram(members, truth, case.grid.area_weights).numpy() * (len(members) + 1)
    columns = min(2, len(index))
    rows = -(-len(index) // columns)
    figure = new_figure(4.5, 1.35 * rows + 0.5)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    bottom = 0.42 / figure.get_figheight()
    figure.subplots_adjust(left=0.12, right=0.98, top=0.93, bottom=bottom, hspace=0.35, wspace=0.08)
    for ax, name, values in zip(axes, case.displayed, frequency, strict=False):
        ax.bar(np.arange(len(values)), values, width=0.9, color=ANALYSIS_COLOUR, alpha=0.8)
        ax.axhline(1.0, color="#000000", linewidth=0.8)
        ax.set_title(label(name), loc="left", y=1.0, fontsize=8)
    for ax in axes[len(index) :]:
        ax.set_axis_off()
    figure.supxlabel(f"rank of the truth among {len(members)} members", fontsize=8.5, y=0.01)
    figure.supylabel("frequency / uniform", fontsize=8.5, x=0.005)
    alt = "Rank histograms, flat at one when calibrated. " + "; ".join(
        f"{name}: outermost ranks {v[0]:.1f} and {v[-1]:.1f}, middle {v[len(v) // 2]:.1f} times uniform"
        for name, v in zip(case.displayed, frequency, strict=True)
    )
    return finish(figure, alt, "Rank histograms")


def _channel_axes(channels: tuple[str, ...]) -> tuple[Figure, Axes]:
    width = float(np.clip(1.2 + 0.26 * len(channels), 4.5, 16.0))
    figure = new_figure(width, 3.1)
    ax: Axes = figure.add_axes((0.55 / width, 0.19, 1 - 0.65 / width, 0.68))
    ax.set_xticks(np.arange(len(channels)), channels, rotation=90)
    ax.set_xlim(-0.6, len(channels) - 0.4)
    ax.grid(axis="x", color="#000000", alpha=0.08, linewidth=0.6)
    for i in range(1, len(channels)):  # a thin line between variables
        if channels[i].rstrip("0123456789") != channels[i - 1].rstrip("0123456789"):
            ax.axvline(i - 0.5, color="#000000", alpha=0.25, linewidth=0.6)
    return figure, ax


def _look(name: str, j: int) -> tuple[str, str]:
    if name == ANALYSIS:
        return ANALYSIS_COLOUR, "o"
    return BASELINE_COLOURS[j % len(BASELINE_COLOURS)], BASELINE_MARKERS[j % len(BASELINE_MARKERS)]


def _dots(ax: Axes, mean: Array, stderr: Array, offset: float, colour: str, marker: str, name: str) -> None:
    x = np.arange(len(mean)) + offset
    error = np.where(np.isfinite(stderr), stderr, 0.0)
    ax.errorbar(x, mean, yerr=error if error.any() else None, fmt=marker, color=colour, ms=4, lw=0.9, label=name)
