"""Runs all (method, case) pairs of a suite that are not finished yet, one after the other, by process, or on a Dask cluster.

A finished pair is one file, named by what decides its numbers; a suite started again goes on where it stopped, and a pair that
failed stays in the record as failed. What a pair computes does not depend on where or beside what it runs.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from genda.atomic import replacing
from genda.benchmark.experiment import experiment_of
from genda.benchmark.suite import Suite
from genda.verify import Statistics
from genda.workers import side_by_side

FAILURES = (FloatingPointError, np.linalg.LinAlgError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
"""What a method may do on a case without stopping the suite: its pair is recorded as failed."""


@dataclass(frozen=True)
class Pair:
    """One method on one case.

    Attributes:
        suite, data: as for :func:`run_suite`.
        scenario, name, case: which.
        file: where the finished pair is kept, named by everything that decides its numbers; suites that agree in that
            share it.
    """

    suite: Suite
    data: Path | None
    scenario: str
    name: str
    case: str
    file: Path


def pairs(suite: Suite, directory: Path, data: Path | None = None) -> list[Pair]:
    """All pairs of a suite, methods outermost: what a method has to prepare is used for all its cases."""
    experiment = experiment_of(suite, data)
    cases, folders = experiment.cases, {}
    for scenario in experiment.scenarios:
        for name, spec in suite.methods.items():
            if not experiment.applies(spec, scenario):
                continue
            decides = json.dumps(experiment.decides(spec, scenario), sort_keys=True).encode()
            key = hashlib.blake2b(decides, digest_size=6).hexdigest()
            word = "".join(c if c.isalnum() else "-" for c in name)
            folders[scenario, name] = directory / suite.kind / f"{word}-{key}"
    return [
        Pair(suite, data, scenario, name, case, folders[scenario, name] / f"{case}.npz")
        for scenario, name in sorted(folders, key=lambda key: list(suite.methods).index(key[1]))
        for case in cases
    ]


def run_suite(
    suite: Suite,
    directory: Path,
    data: Path | None = None,
    *,
    workers: int = 1,
    dask: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Compute what is missing.

    Args:
        suite: from :func:`genda.benchmark.suite.read_suite`.
        directory: finished pairs are kept below it.
        data: as for :func:`genda.benchmark.experiment.experiment_of`.
        workers: processes side by side.
        dask: address of a scheduler whose workers see ``directory``; instead of processes here. See
            :func:`genda.workers.on_cluster` for what it raises.
        progress: called with the number of finished pairs and of all.

    Raises:
        ValueError, FileNotFoundError: for a suite or data that cannot be used.
        OSError: if a process dies.
    """
    directory = directory.absolute()  # a cluster's workers stand elsewhere
    data = None if data is None else data.absolute()
    wanted = pairs(suite, directory, data)
    missing = [pair for pair in wanted if not pair.file.exists()]
    done = len(wanted) - len(missing)
    if progress is not None:
        progress(done, len(wanted))
    for _ in side_by_side(run_pair, missing, workers, dask, directory):
        done += 1
        if progress is not None:
            progress(done, len(wanted))


def run_pair(pair: Pair) -> None:
    """Compute one pair and keep it, with the seconds and the peak memory it took."""
    _forget_peak()
    started = time.perf_counter()
    try:
        experiment = experiment_of(pair.suite, pair.data, pair.file.parent)
        statistics = experiment.run(pair.suite.methods[pair.name], pair.scenario, pair.case)
        found: dict[str, Any] = {f"value:{name}": values for name, values in statistics.values.items()}
        found |= {"samples": np.array(statistics.samples), "weight": statistics.weight}
    except FAILURES as failure:
        found = {"failure": np.array(" ".join(str(failure).split()))}
    found |= {"seconds": np.array(time.perf_counter() - started), "peak_mb": np.array(_peak_mb())}
    pair.file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(pair.file) as partial, partial.open("wb") as stream:
        np.savez(stream, **found)


def read_pair(pair: Pair, channels: tuple[str, ...]) -> tuple[Statistics | None, dict[str, Any]]:
    """Statistics (None where the method failed) and the record of a finished pair.

    Raises:
        ValueError: for a damaged file.
    """
    try:
        return _read(pair, channels)
    except (BadZipFile, EOFError, KeyError, OSError, ValueError, zlib.error) as error:
        found = " ".join(str(error).split())
        raise ValueError(
            f"{pair.file}: damaged ({found}), expected a finished pair; once it is removed the pair is computed again"
        ) from error


def _read(pair: Pair, channels: tuple[str, ...]) -> tuple[Statistics | None, dict[str, Any]]:
    with np.load(pair.file) as saved:
        record = {name: saved[name].item() for name in ("seconds", "peak_mb", "failure") if name in saved.files}
        if "failure" in record:
            return None, record
        values = {name.removeprefix("value:"): saved[name] for name in saved.files if name.startswith("value:")}
        samples = tuple(str(sample) for sample in saved["samples"])
        return Statistics(samples, channels, values, saved["weight"]), record


def _forget_peak() -> None:
    """Let the kernel's record of this process's peak memory start anew, where it can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    """Peak resident memory since then, in MB; NaN where unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return kilobytes[0] * 1024 / 1e6 if kilobytes else float("nan")
