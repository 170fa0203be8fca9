"""The nature run as an experiment: truth streams, a source of perturbations, backgrounds, ensembles; resumable at any point.

A chunk of five days is written in the order fields, ``written`` flag, modal states, continuation file. A killed run
repeats at most the chunk (or the background) it was in, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genda.forecast.backgrounds import plan, write_backgrounds
from genda.forecast.ensembles import MEMBERS, write_ensembles
from genda.forecast.nature import GcmState, NatureModel, optional
from genda.forecast.pressure import to_pressure_levels
from genda.forecast.store import Run, create_store, days_done, save_arrays, write_frames
from genda.forecast.timeline import CHUNK_DAYS, DAYS_PER_YEAR, SPIN_UP_DAYS, Stream, Timeline
from genda.variables import EMBEDDED_LEVELS

Report = Callable[[str, int, int], None]
"""Called with the name of a part, the days (or dates) done and those to do."""


def nature_run(
    out: Path,
    *,
    years: int,
    seed: int,
    grid: str = "t31",
    members: int = 1,
    pairs: int = 500,
    validation_pairs: int = 60,
    test_pairs: int = 100,
    ensemble: int = MEMBERS,
    variant: str = "b",
    parts: Sequence[str] | None = None,
    progress: bool = False,
    year_days: int = DAYS_PER_YEAR,
    spin_up: int = SPIN_UP_DAYS,
    report: Report | None = None,
) -> None:
    """Make the embedded experiment's data, or go on where an earlier call stopped.

    Args:
        out: the Zarr store to write; ``OUT.restart`` appears beside it and may be deleted when all is done.
        years: training years; one validation and one test year follow.
        seed: decides everything drawn.
        grid: ``"t21"``, ``"t31"`` or ``"t42"``.
        members: independent streams the years are dealt to. Streams of equal length advance together, vectorised,
            where jax finds a GPU.
        pairs: training dates with backgrounds; ``validation_pairs`` and ``test_pairs`` likewise.
        ensemble: members about each test and validation background; fewer than 2 make none.
        variant: of the backgrounds, ``"a"`` or ``"b"``.
        parts: only these, for processes side by side: "truth-0" … , "source", "background-test",
            "background-validation", "background-train", "ensemble-test", "ensemble-validation". None is all of them, in
            this order.
        progress: show a progress bar on standard error.
        year_days: length of a year, for tests.
        spin_up: days dropped before each stream.
        report: called with the name of a part, what is done and what there is to do.

    Raises:
        ValueError: for arguments out of range, an unknown part, or a store made with other arguments.
        ModuleNotFoundError: where jcm is not installed.
        FileNotFoundError: where a part needs another that has not come far enough.
        FloatingPointError: where a field is not finite; nothing of that chunk or date is written.
    """
    timeline = Timeline(years, seed, members, year_days, spin_up)
    counts = {"test": test_pairs, "validation": validation_pairs, "train": pairs}
    dates = plan(timeline, counts, variant)
    streams = {stream.name: stream for stream in (*timeline.streams, timeline.source)}
    judged = [split for split in ("test", "validation") if ensemble > 1]
    known = [*streams, *(f"background-{split}" for split in counts), *(f"ensemble-{split}" for split in judged)]
    chosen = known if parts is None else list(parts)
    unknown = [part for part in chosen if part not in known]
    if unknown:
        raise ValueError(f"parts: found {', '.join(unknown)}, expected some of {', '.join(known)}")
    optional("jcm")
    run = Run(Path(out), timeline, grid)
    model_of = cache(partial(NatureModel, grid))
    create_store(run, model_of(1))
    batch = _GPU_BATCH if _has_gpu() else 1
    with _reporting(progress, report) as tell:
        truths = [streams[part] for part in chosen if part.startswith("truth")]
        for together in groups(run, truths, _has_gpu()):
            integrate(run, together, model_of(len(together)), tell)
        if "source" in chosen:
            integrate(run, [timeline.source], model_of(1), tell)
        for split in counts:
            if f"background-{split}" in chosen and any(pair.split == split for pair in dates):
                write_backgrounds(run, dates, split, model_of(batch), variant, tell)
        for split in judged:
            if f"ensemble-{split}" in chosen and any(pair.split == split for pair in dates):
                write_ensembles(run, dates, split, model_of(batch), ensemble, variant, tell)


_GPU_BATCH = 32


def _has_gpu() -> bool:
    return bool(optional("jax").default_backend() == "gpu")


def groups(run: Run, streams: Sequence[Stream], together: bool) -> list[list[Stream]]:
    """Streams that advance together: those of equal length that have come equally far, or each alone.

    A run killed between two members' continuation files leaves them a chunk apart; they part company then.
    """
    if not together:
        return [[stream] for stream in streams]
    found: dict[tuple[int, int], list[Stream]] = {}
    for stream in streams:
        found.setdefault((stream.days, days_done(run, stream)), []).append(stream)
    return list(found.values())


@contextmanager
def _reporting(progress: bool, report: Report | None) -> Iterator[Report]:
    """A report that also moves a bar on standard error."""
    if not progress:
        yield report or (lambda name, done, total: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)
            if report is not None:
                report(name, done, total)

        yield tell


def integrate(run: Run, streams: Sequence[Stream], model: NatureModel, report: Report | None = None) -> None:
    """Run streams of equal length to their end, together, from wherever they were left.

    Raises:
        FloatingPointError: naming the field, the stream and the date, where a field is not finite; nothing of that
            chunk is written.
        ValueError: where the streams differ in length.
    """
    if len({(s.days, s.spin_up) for s in streams}) != 1:
        raise ValueError("streams: found different lengths, expected equal ones to advance together")
    first = streams[0]
    day = min(days_done(run, s) for s in streams)
    if day >= first.days:
        return
    if day == -first.spin_up:
        dates = [s.start - np.timedelta64(24 * s.spin_up, "h") for s in streams]
        state = model.start([s.seed for s in streams], dates)
    else:
        state = _load_together(run, streams, model, day)
    while day < first.days:
        modal: list[list[list[NDArray[Any]]]] = [[] for _ in streams]
        frames: list[list[dict[str, NDArray[np.float64]]]] = [[] for _ in streams]
        for _ in range(CHUNK_DAYS):
            leaves = model.leaves(state.dynamics)
            state, fields = model.advance(state)
            for member, sigma_fields in enumerate(fields):
                modal[member].append([leaf[member] for leaf in leaves])
                if day >= 0 and streams[member].offset is not None:
                    frames[member].append(to_pressure_levels(sigma_fields, [100.0 * p for p in EMBEDDED_LEVELS]))
                if not np.isfinite(sigma_fields.temperature).all():
                    raise FloatingPointError(f"temperature of {streams[member].name} is not finite, day {day}")
        for member, stream in enumerate(streams):
            if frames[member]:
                write_frames(run, stream, day, frames[member])
            if day >= 0:
                save_arrays(run.restart / stream.name / f"days-{day:05d}.npz", _by_leaf(modal[member]))
        day += CHUNK_DAYS
        leaves = model.leaves(state)
        for member, stream in enumerate(streams):
            latest = {f"leaf{i:03d}": leaf[member] for i, leaf in enumerate(leaves)}
            save_arrays(run.restart / stream.name / "latest.npz", {"day": np.array(day), **latest}, compress=False)
            if report is not None:
                report(stream.name, day + stream.spin_up, stream.days + stream.spin_up)


def _load_together(run: Run, streams: Sequence[Stream], model: NatureModel, day: int) -> GcmState:
    members = []
    for stream in streams:
        with np.load(run.restart / stream.name / "latest.npz") as saved:
            if int(saved["day"]) != day:
                raise ValueError(f"{stream.name}: found day {int(saved['day'])}, expected {day} as its companions")
            members.append([saved[name] for name in sorted(saved.files) if name != "day"])
    return model.restore([np.stack(leaves) for leaves in zip(*members, strict=True)])


def _by_leaf(states: Sequence[Sequence[NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {f"leaf{i:03d}": np.stack(leaves) for i, leaves in enumerate(zip(*states, strict=True))}
