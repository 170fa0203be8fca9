"""Maps: input, truth, ensemble mean, a member, spread, errors, all of one channel on common colour scales.

One panel is one picture, so that a page can lay them side by side on a desk and one below the other on a phone. Fields
that are to be compared share limits: magnitudes one range, every difference one symmetric range, every spread one range
from zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from genda.grid import LatLonGrid
from genda.report.case import ReportCase
from genda.report.style import (
    DIFFERENCE,
    MAGNITUDE,
    SIGNED,
    SPREAD,
    Picture,
    display_units,
    finish,
    is_signed,
    label,
    new_figure,
    robust_limits,
    symmetric_limit,
)
from genda.verify.scores import Array

MOST_BASELINES = 3


@dataclass(frozen=True)
class Panel:
    """One field to draw; ``kind`` is "field", "difference" or "spread"."""

    title: str
    values: Array
    grid: LatLonGrid
    kind: str
    note: str = ""


def panels(case: ReportCase, name: str) -> list[Panel]:
    """The maps of a channel, in reading order, in display units."""
    i, grid = case.index(name), case.grid
    scale, units = display_units(name)
    mean = case.mean[i] * scale
    out: list[Panel] = []
    if case.coarse is not None:
        rows, columns = case.coarse[1].shape
        out.append(Panel(f"Coarse observations ({rows}×{columns})", case.coarse[0][i] * scale, case.coarse[1], "field"))
    if case.background is not None:
        out.append(Panel("Background", case.background[i] * scale, grid, "field"))
    if case.truth is not None:
        out.append(Panel("Truth", case.truth[i] * scale, grid, "field"))
    many = len(case.members) > 1
    out.append(Panel(f"Analysis mean of {len(case.members)}" if many else "Analysis", mean, grid, "field"))
    if many:
        out.append(Panel("Member 1", case.members[0, i] * scale, grid, "field"))
    best = {key: value[i] * scale for key, value in case.methods().items()}
    baselines = list(case.baselines)[:MOST_BASELINES]
    out += [Panel(key[:1].upper() + key[1:], best[key], grid, "field") for key in baselines]
    if case.truth is not None:
        truth = case.truth[i] * scale
        for key in [k for k in best if k not in case.baselines or k in baselines]:
            error = best[key] - truth
            note = f"RMSE {_rms(error, grid):.3g} {units}"
            out.append(Panel(f"{key[:1].upper() + key[1:]} − truth", error, grid, "difference", note))
    if case.background is not None:
        increment = mean - case.background[i] * scale
        note = f"rms {_rms(increment, grid):.3g} {units}"
        out.append(Panel("Increment (analysis − background)", increment, grid, "difference", note))
    if many:
        spread = case.members[:, i].std(axis=0, ddof=1) * scale
        out.append(Panel("Analysis spread (std)", spread, grid, "spread", f"rms {_rms(spread, grid):.3g} {units}"))
    return out


def channel_maps(case: ReportCase, name: str) -> list[Picture]:
    """The panels of a channel as pictures."""
    drawn = panels(case, name)
    limits = _limits(drawn, name)
    return [_picture(case, name, panel, limits[panel.kind]) for panel in drawn]


def overview(case: ReportCase, names: tuple[str, ...] = ()) -> Picture:
    """One picture of several channels: a row per channel, columns input, truth, mean, error and spread as far as given."""
    rows = [(n, panels(case, n)) for n in (names or case.displayed)]
    wanted = ("Coarse", "Background", "Truth", "Analysis mean", "Analysis − truth", "Analysis spread")
    rows = [(n, [p for w in wanted for p in ps if p.title.startswith(w)]) for n, ps in rows]
    columns = max(len(ps) for _, ps in rows)
    figure = new_figure(3.1 * columns, 2.15 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.99, top=0.97, bottom=0.04, wspace=0.1, hspace=0.25)
    for line, (name, drawn) in zip(axes, rows, strict=True):
        limits = _limits(drawn, name)
        for ax, panel in zip(line, drawn, strict=False):
            mesh = draw_map(ax, panel, limits[panel.kind], name, case.land_sea_mask, case.grid)
            ax.set_title(f"{name}: {panel.title}", fontsize=8, loc="left")
            figure.colorbar(mesh, ax=ax, orientation="horizontal", fraction=0.06, pad=0.1, extend="both").ax.tick_params(
                labelsize=7
            )
            ax.tick_params(labelsize=6.5)
        for ax in line[len(drawn) :]:
            ax.set_axis_off()
    return finish(figure, f"Overview maps of {', '.join(n for n, _ in rows)}", "Overview")


def _limits(drawn: list[Panel], name: str) -> dict[str, tuple[float, float]]:
    fields = [p.values for p in drawn if p.kind == "field"]
    differences = [p.values for p in drawn if p.kind == "difference"]
    spreads = [p.values for p in drawn if p.kind == "spread"]
    limits = {"field": robust_limits(*fields)}
    if is_signed(name):
        top = symmetric_limit(*fields)
        limits["field"] = (-top, top)
    if differences:
        top = symmetric_limit(*differences)
        limits["difference"] = (-top, top)
    if spreads:
        limits["spread"] = (0.0, symmetric_limit(*spreads))
    return limits


def _rms(values: Array, grid: LatLonGrid) -> float:
    return float(np.sqrt(np.average((values**2).mean(axis=-1), weights=grid.area_weights)))


def _centred(grid: LatLonGrid) -> tuple[Array, int]:
    """Column edges and the roll that puts Greenwich in the middle of a global map."""
    step = grid.longitude_step
    west = np.asarray(grid.longitude) - step / 2
    if not grid.periodic:
        return np.append(west, west[-1] + step), 0
    roll = int(np.argmax(np.asarray(grid.longitude) >= 180.0)) if grid.longitude[-1] >= 180.0 else 0
    lon = np.roll(np.asarray(grid.longitude), -roll)
    lon = np.where(lon >= 180.0, lon - 360.0, lon)
    return np.append(lon - step / 2, lon[-1] + step / 2), roll


def draw_coast(ax: Axes, mask: Array | None, grid: LatLonGrid) -> None:
    """The land–sea mask's 0.5 contour."""
    if mask is None or mask.min() > 0.5 or mask.max() < 0.5:
        return
    edges, roll = _centred(grid)
    land = np.roll(mask, -roll, axis=1)
    centres = 0.5 * (edges[:-1] + edges[1:])
    if grid.periodic:  # one column more on either side, so that coasts reach the frame
        land = np.concatenate([land[:, -1:], land, land[:, :1]], axis=1)
        step = grid.longitude_step
        centres = np.concatenate([[centres[0] - step], centres, [centres[-1] + step]])
    ax.contour(centres, grid.latitude, land, levels=[0.5], colors="#222222", linewidths=0.55)


def draw_map(
    ax: Axes, panel: Panel, limits: tuple[float, float], name: str, mask: Array | None, mask_grid: LatLonGrid
) -> ScalarMappable:
    """Draw cells at their true edges, coastline, and degree labels."""
    colours = {"field": SIGNED if is_signed(name) else MAGNITUDE, "difference": DIFFERENCE, "spread": SPREAD}
    edges, roll = _centred(panel.grid)
    mesh = ax.pcolormesh(
        edges,
        panel.grid.row_edges,
        np.roll(panel.values, -roll, axis=1),
        cmap=colours[panel.kind],
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )
    draw_coast(ax, mask, mask_grid)
    frame_map(ax, panel.grid)
    return mesh


def frame_map(ax: Axes, grid: LatLonGrid) -> None:
    """Limits and degree labels of a map of a grid's domain."""
    edges, _ = _centred(grid)
    if grid.periodic:
        ax.set_xlim(-180, 180)
        ax.set_xticks(range(-120, 121, 60), ["120°W", "60°W", "0°", "60°E", "120°E"])
    else:
        ax.set_xlim(edges[0], edges[-1])
        ax.xaxis.set_major_formatter("{x:g}°E")
    ax.set_ylim(grid.row_edges[-1], grid.row_edges[0])
    if grid.is_global:
        ax.set_yticks([-60, -30, 0, 30, 60], ["60°S", "30°S", "0°", "30°N", "60°N"])
    else:
        ax.yaxis.set_major_formatter("{x:g}°N")
    ax.tick_params(length=2, pad=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)


def map_axes_size(grid: LatLonGrid, width: float) -> float:
    """Height in inches of a plate carrée map ``width`` inches wide."""
    edges, _ = _centred(grid)
    return width * float(grid.row_edges[0] - grid.row_edges[-1]) / float(edges[-1] - edges[0])


def _picture(case: ReportCase, name: str, panel: Panel, limits: tuple[float, float]) -> Picture:
    width, left, right, above, below = 4.5, 0.42, 0.1, 0.28, 0.72
    inner = width - left - right
    height = map_axes_size(panel.grid, inner)
    total = height + above + below
    figure = new_figure(width, total)
    ax = figure.add_axes((left / width, below / total, inner / width, height / total))
    mesh = draw_map(ax, panel, limits, name, case.land_sea_mask, case.grid)
    ax.set_title(panel.title, loc="left", y=1.0)
    if panel.note:
        ax.set_title(panel.note, loc="right", fontsize=8, color="#444444", y=1.0)
    bar = figure.add_axes((left / width, 0.33 / total, inner / width, 0.1 / total))
    extend = "max" if panel.kind == "spread" else "both"
    colourbar = figure.colorbar(mesh, cax=bar, orientation="horizontal", extend=extend)
    _, units = display_units(name)
    colourbar.ax.tick_params(length=2, pad=1.5)
    colourbar.set_label(f"{label(name)} [{units}]", labelpad=1)
    alt = f"Map of {label(name)}: {panel.title}. Colour scale {limits[0]:.4g} to {limits[1]:.4g} {units}. {panel.note}"
    return finish(figure, alt.strip(), panel.title)
