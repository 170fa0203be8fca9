"""Where the real test data lie: ``GENDA_SHARED_DATA``, else ``../shared/data`` beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("GENDA_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")


def shared(name: str) -> Path:
    """Path of a real data file; the test skips where it is absent."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{path} is absent: set GENDA_SHARED_DATA to the folder of real test data")
    return path
