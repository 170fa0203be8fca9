"""Shipped weights, the sample case and its errors; a model is named by its folder here or by a directory of the user's."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent
SAMPLE_CASE = DIRECTORY / "sample.nc"
SAMPLE_ERRORS = DIRECTORY / "sample_errors.nc"
DEMO_OBSERVATIONS = DIRECTORY / "demo_observations.parquet"


def model_directory(name: str | Path) -> Path:
    """The directory of a shipped model's name or of a path.

    Raises:
        FileNotFoundError: if it is neither.
    """
    for candidate in (DIRECTORY / str(name), Path(name)):
        if (candidate / "model.json").is_file():
            return candidate
    shipped = ", ".join(sorted(p.parent.name for p in DIRECTORY.glob("*/model.json")))
    raise FileNotFoundError(
        f"model {str(name)!r}: found neither a shipped model ({shipped}) nor a directory with model.json"
    )
