"""The level channels of a state, one block of levels per field, whatever their order in the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genda.variables import channels

Levels = tuple[int, ...]
"""hPa, from the ground up."""
WIND, SCALARS = ("u", "v"), ("t", "q", "z")


@dataclass(frozen=True)
class LevelFields:
    """Where the channels named keep the fields on levels.

    Attributes:
        names: channel identifiers, in order; channels at the surface are passed over.

    Raises:
        ValueError: for unknown or repeated names.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        channels(self.names)

    @cached_property
    def levels(self) -> dict[str, Levels]:
        """The levels that each field is held on."""
        return {field: tuple(sorted(self._positions[field], reverse=True)) for field in WIND + SCALARS}

    def common(self, fields: str) -> Levels:
        """The levels that all of the fields named are held on."""
        shared = set.intersection(*(set(self.levels[field]) for field in fields))
        return tuple(sorted(shared, reverse=True))

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """States (batch, channel, lat, lon) to fields (batch, level, lat, lon) on the levels of each."""
        return {field: x[:, [self._positions[field][level] for level in self.levels[field]]] for field in self.levels}

    def join(self, fields: Mapping[str, Tensor], levels: Mapping[str, Levels]) -> Tensor:
        """Fields on the levels given to states, zero (or false) in every other channel."""
        parts = list(fields.values())
        source = [sum(part.shape[1] for part in parts)] * len(self.names)
        start = 0
        for field, part in fields.items():
            for i, level in enumerate(levels[field]):
                source[self._positions[field][level]] = start + i
            start += part.shape[1]
        return torch.cat([*parts, torch.zeros_like(parts[0][:, :1])], dim=1)[:, source]

    @cached_property
    def _positions(self) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {field: {} for field in WIND + SCALARS}
        for position, channel in enumerate(channels(self.names)):
            if channel.level_hpa is not None:
                found[channel.field.id][channel.level_hpa] = position
        return found


def on(x: Tensor, own: Levels, levels: Levels) -> Tensor:
    """A field (batch, level, lat, lon) on its own levels brought to others, zero on those it does not have."""
    if own == levels:
        return x
    padded = torch.cat([x, x.new_zeros(len(x), 1, *x.shape[2:])], dim=1)
    return padded[:, [own.index(level) if level in own else len(own) for level in levels]]
