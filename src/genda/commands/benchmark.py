"""``genda benchmark``: run what a suite still lacks, print and draw its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from genda.atomic import replacing
from genda.benchmark import read_results, read_suite, run_suite
from genda.commands.outcome import Outcome, Progress, check_outputs, check_writable
from genda.extras import installing
from genda.report import benchmark_png, ranks_png


def run_benchmark(
    suite: str,
    methods: Sequence[str],
    scenarios: Sequence[str],
    dates: int | None,
    quick: bool,
    workers: int,
    dask: str | None,
    runs: Path,
    data: Path | None,
    out: Path | None,
    reference: str | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Run what a suite still lacks and make its table.

    Raises:
        ValueError, FileNotFoundError: for an unusable suite, before any work.
    """
    if not all(methods):
        raise ValueError("methods: found an empty name, expected all or names separated by commas")
    chosen = read_suite(suite, quick=quick, methods=methods, scenarios=scenarios, dates=dates, reference=reference)
    check_outputs([out])
    if out is not None and out.suffix == ".png":
        raise ValueError(
            f"{out}: found the name of a picture, expected that of a Markdown page, which gets one beside it"
        )
    if not runs.is_dir() and (runs.exists() or runs.is_symlink()):
        raise ValueError(f"{runs}: found a file, expected a folder to keep finished pairs in")
    check_writable(runs.absolute())
    run_suite(chosen, runs, data, workers=workers, dask=dask, progress=progress)
    results = read_results(chosen, runs, data)
    text, document = results.to_markdown(), results.to_dict()
    if out is not None:
        short = " --quick" if quick else ""
        short += "" if "all" in methods else f" --methods {quote(','.join(methods))}"
        short += "".join(f" --scenario {quote(scenario)}" for scenario in scenarios)
        short += "" if dates is None else f" --dates {dates}"
        short += "" if reference is None else f" --reference {quote(reference)}"
        short += "" if data is None else f" --data {data.name}"
        pictures = _pictures(document, out)
        with replacing(out) as page:
            page.write_text(f"# {chosen.suite}\n\n    genda benchmark {suite}{short}\n\n{pictures}{text}")
    return Outcome(text, document)


def _pictures(document: Mapping[str, Any], page: Path) -> str:
    """Draw a benchmark beside its page, and what the page says of the pictures."""
    drawn = (
        (benchmark_png, page.with_suffix(".png"), f"Errors relative to {document['reference']}"),
        (ranks_png, page.with_name(f"{page.stem}-ranks.png"), "Rank histograms"),
    )
    shown = ""
    for draw, path, words in drawn:
        try:
            png = draw(document)
        except ModuleNotFoundError as missing:
            return f"{shown}No picture: {missing.name} is not installed ({installing('plot')}).\n\n"
        if png is None:
            continue
        with replacing(path) as partial_file:
            partial_file.write_bytes(png)
        shown += f"![{words}](<{path.name}>)\n\n"
    return shown
