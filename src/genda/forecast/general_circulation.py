"""The general circulation model as the forecast model of a cycle: incremental initialisation, every member with a model of its own.

Between two calls it remembers the members' whole states and the fields it returned of them. What comes back is an analysis of these
fields; only what it changed is added to the states (:func:`genda.forecast.incremental.changed`), so that no truth is involved,
an analysis that changes nothing leaves the forecast's bits, and what the fields do not show goes on as it was.

A member does not depend on how many there are: members advance one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.forecast.incremental import advanced, changed, model_levels
from genda.forecast.nature import GcmState, NatureModel
from genda.forecast.pressure import Array
from genda.state import Normalisation
from genda.variables import channels


@dataclass(frozen=True)
class Standing:
    """Where the members are.

    Attributes:
        states: of one member each.
        shown: their fields in normalised anomalies, as last returned, shape (member, channel, lat, lon).
        time: valid time.
    """

    states: tuple[GcmState, ...]
    shown: Tensor
    time: np.datetime64


class GeneralCirculation:
    """The model; time is in days.

    Args:
        model: of one member.
        normalisation: of the states it takes and returns.
        names: of their channels.
        strength: of each member's imperfection, see :meth:`genda.forecast.nature.NatureModel.advance`, shape (member, parameter).
        standing: where it begins.

    Raises:
        ValueError: for channels that a model state can't be made of.
    """

    def __init__(
        self,
        model: NatureModel,
        normalisation: Normalisation,
        names: Sequence[str],
        strength: Array,
        standing: Standing,
    ) -> None:
        model_levels(names)
        self.standing = standing
        self.shape: tuple[int, int, int] = (len(names), *model.grid.shape)
        self._model, self._normalisation, self._names, self._strength = model, normalisation, tuple(names), strength

    def step(self, state: Tensor, dt: float) -> Tensor:
        """Analyses (member, channel, lat, lon) of the fields last returned, a whole number of days later; not differentiable.

        Raises:
            ValueError: for another number of members, or a time that is no number of days.
            FloatingPointError: where a forecast is not finite.
        """
        if len(state) != len(self.standing.states):
            raise ValueError(f"state: found {len(state)} members, expected {len(self.standing.states)}")
        days = round(dt)
        if days != dt or days < 1:
            raise ValueError(f"forecast time: found {dt:g} days, expected a whole number of them")
        states, values = [], []
        for member, (own, change) in enumerate(zip(self.standing.states, self._changes(state), strict=True)):
            start = changed(self._model, own, change, self._names)
            end, fields = advanced(self._model, start, self._names, days, self._strength[member : member + 1])
            states.append(end)
            values.append(fields)
        time = self.standing.time + np.timedelta64(24 * days, "h")
        self.standing = Standing(tuple(states), normalised(self._normalisation, np.stack(values), time), time)
        return self.standing.shown

    def _changes(self, state: Tensor) -> Array:
        """Analyses minus forecasts, physical units; what can't be negative, such as humidity, falls to zero at most."""
        shown, times = self.standing.shown.double(), np.array([self.standing.time])
        std = self._normalisation.std.double().view(-1, 1, 1)
        change = std * (state.double() - shown)
        values = self._normalisation.physical(shown.unsqueeze(0), times)[0]
        bounded = torch.tensor([item.field.nonnegative for item in channels(self._names)]).view(-1, 1, 1)
        least = torch.where(bounded, -values.clamp(min=0), -torch.inf)
        return np.asarray(torch.maximum(change, least))


def normalised(normalisation: Normalisation, values: Array, time: np.datetime64) -> Tensor:
    """Physical (member, channel, lat, lon) of one time in normalised anomalies."""
    return normalisation.normalise(torch.as_tensor(values).unsqueeze(0), np.array([time]))[0].float()


def arrays_of(model: NatureModel, standing: Standing) -> dict[str, NDArray[Any]]:
    """All of it, to the bit."""
    members = zip(*(model.leaves(state) for state in standing.states), strict=True)
    leaves = {f"leaf{i:03d}": np.concatenate(leaf) for i, leaf in enumerate(members)}
    return leaves | {"shown": standing.shown.numpy(), "time": np.array(standing.time)}


def standing_of(model: NatureModel, arrays: Mapping[str, NDArray[Any]]) -> Standing:
    """The way back from :func:`arrays_of`."""
    leaves = [arrays[name] for name in sorted(arrays) if name.startswith("leaf")]
    shown = torch.as_tensor(arrays["shown"])
    states = tuple(model.restore([leaf[k : k + 1] for leaf in leaves]) for k in range(len(shown)))
    return Standing(states, shown, np.datetime64(arrays["time"].item(), "ns"))
