"""Reports: figures of one analysis on one self-contained HTML page, and the picture of a benchmark (extra ``plot``).

    write_report(ReportCase("My analysis", time, channels, grid, members, truth=truth, background=background), "report.html")

Matplotlib is imported when a page or picture is asked for, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genda.report.case import ReportCase

__all__ = ["ReportCase", "benchmark_png", "overview_png", "ranks_png", "write_report"]


def write_report(case: ReportCase, path: str | Path) -> Path:
    """Draw a case and write one self-contained HTML page, whole or not at all.

    Raises:
        FileNotFoundError: where the folder does not exist.
        ModuleNotFoundError: without matplotlib (extra ``plot``).
    """
    from genda.report.page import write_report as write

    return write(case, path)


def overview_png(case: ReportCase, channels: tuple[str, ...] = ()) -> bytes:
    """One picture of input, truth, mean, error and spread as PNG bytes, for a README or a slide."""
    from genda.report.maps import overview
    from genda.report.style import style

    with style():
        return overview(case, channels).png


def benchmark_png(document: Mapping[str, Any]) -> bytes | None:
    """The JSON document of ``genda benchmark`` drawn, as PNG bytes; None where no method compares with the reference.

    Raises:
        ModuleNotFoundError: without matplotlib (extra ``plot``).
    """
    from genda.report.benchmark import benchmark_figure, comparable
    from genda.report.style import finish, style

    if not comparable(document):
        return None
    with style():
        return finish(benchmark_figure(document), "", "").png


def ranks_png(document: Mapping[str, Any]) -> bytes | None:
    """Rank histograms of the ensembles in the JSON document of ``genda benchmark``, as PNG bytes; None where there are none.

    Raises:
        ModuleNotFoundError: without matplotlib (extra ``plot``).
    """
    from genda.report.ranks import ranks_figure
    from genda.report.style import finish

    if not any(row.get("ranks") for row in document["rows"]):
        return None
    return finish(ranks_figure(document), "", "").png
