"""Levels per second of the IGRA 2 reader and of the ``igra`` package on the same file in one run.

    pip install igra; python benchmarks/igra_speed.py AUM00011035-data.txt.gz [--repeats 7]

Processor seconds, best of the repeats. The package's ``ascii_to_dataframe`` gives a wide table of the numbers in the file; what
it does next (``igra.read.igra``, to standard levels in SI units) fails with NumPy 2.4. This reader's table is long, checked, in
SI units, with humidity and wind converted. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import igra

from genda.observations import read_igra


def best(call: Callable[[], object], repeats: int) -> float:
    """Processor seconds, prints and warnings of the package swallowed."""
    found = []
    for _ in range(repeats):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            started = time.process_time()
            call()
            found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "AUM00011035-data.txt"
        text.write_bytes(gzip.decompress(options.file.read_bytes()))
        levels = sum(line[:1] != b"#" for line in text.read_bytes().splitlines())
        readers = {
            "genda `read_igra`, .gz": lambda: read_igra(options.file),
            "genda `read_igra`, .txt": lambda: read_igra(text),
            "igra `ascii_to_dataframe`": lambda: igra.read.ascii_to_dataframe(str(text)),
        }
        own = 0.0
        print("| reader | processor s | levels/s | times genda's |\n|---|---|---|---|")
        for label, call in readers.items():
            seconds = best(call, options.repeats)
            own = seconds if label.startswith("genda") else own
            print(f"| {label} | {seconds:.3f} | {levels / seconds:,.0f} | {seconds / own:.1f} |")


if __name__ == "__main__":
    main()
