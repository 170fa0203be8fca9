"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden path beside ``path`` to write to; it takes the place of ``path`` once the block has ended without an error.

    What was written is on disk before the name changes, so that a machine that stops leaves the old file or the new one.
    """
    target = Path(path)
    partial = target.with_name(
        f".{target.name}.partial"
    )  # the same at every try, so that a killed one leaves no litter
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
