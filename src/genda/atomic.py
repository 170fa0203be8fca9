"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden path beside ``path`` to write a file or a folder to; it takes the place of ``path`` once the block has ended
    without an error. A folder takes no other's place.

    What was written is on disk before the name changes, so that a machine that stops leaves the old file or the new one.
    """
    target = Path(path)
    partial = target.with_name(
        f".{target.name}.partial"
    )  # the same at every try, so that a killed one leaves no litter
    try:
        yield partial
        for written in (*partial.rglob("*"), partial):
            descriptor = os.open(written, os.O_RDONLY)  # folders too: they hold the names
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.replace(partial, target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
