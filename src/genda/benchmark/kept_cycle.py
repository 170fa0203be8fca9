"""What a cycle keeps of itself: after every turn one file, whole or not at all, with all that it needs to go on to the same bits.

The file stays when the cycle is finished, without the model's states: its statistics are of every turn.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from genda.atomic import replacing
from genda.forecast.general_circulation import Standing, arrays_of, standing_of
from genda.forecast.nature import NatureModel
from genda.verify import Statistics


@dataclass(frozen=True)
class Going:
    """A cycle between two turns.

    Attributes:
        standing: of the model; None where the cycle is finished.
        analysis: of the members where they stand, normalised anomalies, shape (member, channel, lat, lon).
        generator: of what the method draws.
        statistics: of the turns so far, None before the first.
    """

    standing: Standing | None
    analysis: Tensor
    generator: torch.Generator
    statistics: Statistics | None

    @property
    def turns(self) -> int:
        return 0 if self.statistics is None else len(self.statistics.samples)


def write_cycle(file: Path, model: NatureModel, going: Going, finished: bool) -> None:
    """Replace what is kept of a cycle after a turn."""
    found: dict[str, Any] = {"analysis": going.analysis.numpy(), "generator": going.generator.get_state().numpy()}
    if going.statistics is not None:
        found |= {f"value:{name}": values for name, values in going.statistics.values.items()}
        found |= {"samples": np.array(going.statistics.samples), "weight": going.statistics.weight}
    if going.standing is not None and not finished:
        found |= arrays_of(model, going.standing)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial, partial.open("wb") as stream:
        np.savez(stream, **found)


def read_cycle(file: Path, model: NatureModel, channels: tuple[str, ...]) -> Going:
    """What is kept of a cycle, after at least one turn.

    Raises:
        ValueError: for a damaged file.
    """
    generator = torch.Generator()
    try:
        with np.load(file) as saved:
            generator.set_state(torch.as_tensor(saved["generator"]))
            standing = standing_of(model, dict(saved)) if "shown" in saved.files else None
            return Going(standing, torch.as_tensor(saved["analysis"]), generator, read_turns(file, channels))
    except (BadZipFile, EOFError, KeyError, OSError, RuntimeError, ValueError, zlib.error) as error:
        found = " ".join(str(error).split())
        raise ValueError(
            f"{file}: damaged ({found}), expected what a cycle keeps; once it is removed the cycle starts again"
        ) from error


def read_turns(file: Path, channels: tuple[str, ...]) -> Statistics:
    """Statistics of every turn of a cycle so far, from the file it keeps."""
    with np.load(file) as saved:
        values = {name.removeprefix("value:"): saved[name] for name in saved.files if name.startswith("value:")}
        return Statistics(tuple(saved["samples"]), channels, values, saved["weight"])
