"""What a report is made of: one analysis at one time, with whatever there is to judge it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from genda.grid import LatLonGrid
from genda.observations.flags import Flag
from genda.variables import channels as parse_channels
from genda.verify.fields import field_statistics
from genda.verify.scores import Array
from genda.verify.table import ScoreTable

ANALYSIS = "analysis"
PREFERRED_CHANNELS = ("t2m", "z500", "u10", "q700")


@dataclass(frozen=True)
class ReportCase:
    """One analysis. Fields are in SI units; all but the first five attributes may be left out and are then not drawn.

    Attributes:
        title: heading of the page.
        time: valid time.
        channels: identifiers, in order.
        grid: where the fields stand.
        members: the analysis ensemble, shape (member, channel, lat, lon).
        truth: shape (channel, lat, lon).
        background: shape (channel, lat, lon).
        background_name: what the background is, such as "24 h forecast" or "climatology".
        baselines: other methods' analyses by name, shape (channel, lat, lon) or (member, channel, lat, lon).
        observations: the assimilated observation table; with columns hx_b and hx_a, drawn as departures.
        withheld: the table of observations that were kept back, with hx_b and hx_a.
        coarse: a coarse observed field, shape (channel, lat', lon'), and its grid.
        land_sea_mask: land fraction, shape (lat, lon), drawn as coastline.
        scores: a table over many dates; default one of this case alone, where there is a truth.
        std: standard deviation per channel, shape (channel,), for scores over all channels.
        settings, provenance: what was asked, and what with (model card, seed, versions, command): shown as they are.
        timings: seconds by stage.
        display: up to six channels to draw; default t2m, z500, u10, q700 where present.
        flag_names: meaning of the integer quality flags.

    Raises:
        ValueError: for shapes that disagree or values that are not finite.
    """

    title: str
    time: np.datetime64
    channels: tuple[str, ...]
    grid: LatLonGrid
    members: Array
    truth: Array | None = None
    background: Array | None = None
    baselines: Mapping[str, Array] = field(default_factory=dict)
    observations: pd.DataFrame | None = None
    withheld: pd.DataFrame | None = None
    coarse: tuple[Array, LatLonGrid] | None = None
    land_sea_mask: Array | None = None
    scores: ScoreTable | None = None
    std: Array | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    display: tuple[str, ...] = ()
    flag_names: Mapping[int, str] = field(default_factory=lambda: {int(flag): flag.label for flag in Flag})
    background_name: str = "background"

    def __post_init__(self) -> None:
        parse_channels(self.channels)
        shape = (len(self.channels), *self.grid.shape)
        put = object.__setattr__
        put(self, "members", _checked("members", self.members, shape, (4,)))
        for name in ("truth", "background"):
            if getattr(self, name) is not None:
                put(self, name, _checked(name, getattr(self, name), shape, (3,)))
        put(self, "baselines", {k: _checked(f"baseline {k!r}", v, shape, (3, 4)) for k, v in self.baselines.items()})
        reserved = {ANALYSIS, self.background_name} & set(self.baselines)
        if reserved:
            raise ValueError(f"baselines: found the name {reserved.pop()!r}, which is the report's own")
        if self.coarse is not None:
            values, grid = self.coarse
            put(self, "coarse", (_checked("coarse", values, (len(self.channels), *grid.shape), (3,)), grid))
        if self.land_sea_mask is not None:
            put(self, "land_sea_mask", _checked("land_sea_mask", self.land_sea_mask, self.grid.shape, (2,)))
        unknown = [name for name in self.display if name not in self.channels]
        if unknown:
            raise ValueError(f"display: found {', '.join(unknown)}, expected some of {', '.join(self.channels)}")

    @property
    def mean(self) -> Array:
        """The ensemble mean, shape (channel, lat, lon)."""
        return np.asarray(self.members.mean(axis=0))

    @property
    def displayed(self) -> tuple[str, ...]:
        """The channels to draw."""
        chosen = self.display or tuple(c for c in PREFERRED_CHANNELS if c in self.channels)
        return (chosen or self.channels)[:6]

    def index(self, channel: str) -> int:
        return self.channels.index(channel)

    def methods(self) -> dict[str, Array]:
        """Everything that estimates the truth, best estimates only: background, baselines, analysis; (channel, lat, lon)."""
        fields = {} if self.background is None else {self.background_name: self.background}
        fields |= {name: v.mean(axis=0) if v.ndim == 4 else v for name, v in self.baselines.items()}
        return fields | {ANALYSIS: self.mean}

    def score_table(self) -> ScoreTable | None:
        """The table given, or that of this one case; None without a truth."""
        if self.scores is not None or self.truth is None:
            return self.scores
        everything = {} if self.background is None else {self.background_name: self.background}
        everything |= dict(self.baselines)
        truth, times = torch.as_tensor(self.truth)[None], np.asarray([self.time], dtype="datetime64[ns]")
        rows = {
            name: field_statistics(
                torch.as_tensor(values)[None], truth, times=times, channels=self.channels, grid=self.grid, std=self.std
            )
            for name, values in (everything | {ANALYSIS: self.members}).items()
        }
        reference = next(iter(rows)) if len(rows) > 1 else None
        return ScoreTable(rows, reference, self.std)


def _checked(
    name: str, values: ArrayLike | Tensor, shape: Sequence[int], ranks: tuple[int, ...]
) -> NDArray[np.float64]:
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
    if array.ndim not in ranks or array.shape[-len(shape) :] != tuple(shape) or array.size == 0:
        leading = "(member, …) " if 4 in ranks else ""
        raise ValueError(f"{name}: found shape {array.shape}, expected {leading}{tuple(shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: found a value that is not finite")
    return array
