"""Levels per second of the IGRA 2 reader and of the ``igra`` package on the same file in one run.

    python -m venv peer; peer/bin/pip install igra==26.4 'numpy<2' 'pandas<3' 'xarray<2025'
    python benchmarks/igra_speed.py AUM00011035-data.txt.gz --peer peer/bin/python [--repeats 7]

Processor seconds, best of the repeats. The package's ``read.igra`` is its reader: standard levels in SI units; it works with
older NumPy, pandas and xarray than this package, hence the environment of its own. Its ``ascii_to_dataframe`` is the first
step of that, a wide table of the numbers in the file. This reader's table is long, checked, in SI units, of all levels, with
humidity and wind converted. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from genda.observations import read_igra

PEER = """
import contextlib, io, json, sys, time, warnings
import igra.read
text, packed, repeats = sys.argv[1:3] + [int(sys.argv[3])]
def best(call):
    found = []
    for _ in range(repeats):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            started = time.process_time()
            call()
            found.append(time.process_time() - started)
    return min(found)
warnings.simplefilter("ignore")
print(json.dumps({
    "igra `read.igra`, .gz": best(lambda: igra.read.igra("AUM00011035", packed)),
    "igra `read.igra`, .txt": best(lambda: igra.read.igra("AUM00011035", text)),
    "igra `ascii_to_dataframe`, .txt": best(lambda: igra.read.ascii_to_dataframe(text)),
}))
"""


def best(call: Callable[[], object], repeats: int) -> float:
    """Processor seconds."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer", default=sys.executable, help="Python of an environment with the package")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        text, packed = Path(name) / "AUM00011035-data.txt", Path(name) / "AUM00011035-data.txt.gz"
        packed.write_bytes(options.file.read_bytes())
        text.write_bytes(gzip.decompress(options.file.read_bytes()))
        levels = sum(line[:1] != b"#" for line in text.read_bytes().splitlines())
        seconds = {
            "genda `read_igra`, .gz": best(lambda: read_igra(packed), options.repeats),
            "genda `read_igra`, .txt": best(lambda: read_igra(text), options.repeats),
        }
        command = [options.peer, "-c", PEER, str(text), str(packed), str(options.repeats)]
        seconds |= json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    print("| reader | processor s | levels/s | times genda's of the same file |\n|---|---|---|---|")
    for label, taken in seconds.items():
        own = seconds[f"genda `read_igra`, {label.rpartition(', ')[2]}"]
        print(f"| {label} | {taken:.3f} | {levels / taken:,.0f} | {taken / own:.1f} |")


if __name__ == "__main__":
    main()
