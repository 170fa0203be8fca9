"""How figures look: units a reader expects, perceptually uniform colours, and figures as small PNG data.

Matplotlib is imported here and in the figure modules only, which :func:`genda.report.write_report` imports when called.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from genda.variables import channel
from genda.verify.scores import Array

DPI = 140
MAGNITUDE, SIGNED, DIFFERENCE, SPREAD = "viridis", "PuOr_r", "RdBu_r", "magma_r"
"""Colour maps: perceptually uniform for magnitudes and spread; diverging, centred on zero, for winds and differences."""
TRUTH_COLOUR, ANALYSIS_COLOUR, BACKGROUND_COLOUR = "#000000", "#0072B2", "#7a7a7a"
BASELINE_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart with any colour vision; line styles and markers differ as well."""
BASELINE_MARKERS = ("s", "^", "D", "v", "P")
RC: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
}

_DISPLAY = {"kg kg-1": (1e3, "g kg⁻¹"), "Pa": (1e-2, "hPa"), "m2 s-2": (1.0, "m² s⁻²"), "m s-1": (1.0, "m s⁻¹")}
_SQUARED = {"g kg⁻¹": "(g kg⁻¹)²", "hPa": "hPa²", "m² s⁻²": "m⁴ s⁻⁴", "m s⁻¹": "m² s⁻²", "K": "K²"}


@dataclass(frozen=True)
class Picture:
    """A finished figure: PNG bytes, what it shows in words, and its caption."""

    png: bytes
    alt: str
    caption: str
    width: int
    height: int

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def display_units(name: str) -> tuple[float, str]:
    """Factor from SI and the units shown for a channel or field: g kg⁻¹ and hPa where readers expect them."""
    units = channel(name).field.units
    return _DISPLAY.get(units, (1.0, units))


def squared_units(units: str) -> str:
    return _SQUARED.get(units, f"({units})²")


def is_signed(name: str) -> bool:
    """Whether zero is the natural middle: wind components."""
    return channel(name).field.id in ("u", "v", "u10", "v10")


def label(name: str) -> str:
    """ "500 hPa geopotential", "2 m temperature"."""
    c = channel(name)
    words = c.field.name.replace("_", " ").replace("2m", "2 m").replace("10m", "10 m")
    words = words.replace("u component of wind", "eastward wind").replace("v component of wind", "northward wind")
    return words if c.level_hpa is None else f"{c.level_hpa} hPa {words}"


def robust_limits(*fields: Array, share: float = 0.5) -> tuple[float, float]:
    """Common colour limits that leave ``share`` per cent of values beyond each end."""
    low, high = np.percentile(np.concatenate([f.ravel() for f in fields]), [share, 100 - share])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def symmetric_limit(*fields: Array, share: float = 0.5) -> float:
    """The limit ±v for values around zero."""
    limit = float(np.percentile(np.abs(np.concatenate([f.ravel() for f in fields])), 100 - share))
    return limit or 1.0


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that belongs to no global state."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def style() -> Iterator[None]:
    """Context in which figures are drawn."""
    with rc_context(RC):
        yield


def finish(figure: Figure, alt: str, caption: str, full_colour: bool = False) -> Picture:
    """Render to a PNG of 256 colours, a third of the size; full colour for pictures of several colour maps."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        raise TypeError("figure: expected one made by new_figure")
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if not full_colour:
        image = image.quantize(colors=256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return Picture(buffer.getvalue(), alt, caption, image.width, image.height)
