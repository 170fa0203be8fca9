r"""Forecast, analyse, forecast: what an assimilation method is for.

    x_f(t_k) = M(x_a(t_{k-1})),        x_a(t_k) ~ p(x | x_f(t_k), y_k)

The cycle carries whatever the method returns, one state or an ensemble; a method that reads ``Problem.ensemble`` finds the
members there and every method finds their mean as the background.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genda.forecast import ForecastModel
from genda.methods import Method
from genda.problem import Problem, Source


@dataclass(frozen=True)
class Cycled:
    """One turn of the cycle.

    Attributes:
        forecast: members (member, channel, lat, lon) before the observations.
        analysis: members after them.
    """

    forecast: Tensor
    analysis: Tensor


@torch.no_grad()
def cycle(
    model: ForecastModel,
    method: Method,
    start: Tensor,
    observations: Iterable[tuple[Source, ...]],
    interval: float,
    generator: torch.Generator,
) -> Iterator[Cycled]:
    """Turn by turn, lazily.

    Args:
        model: the forecast model.
        method: the assimilation method.
        start: members at the time of one ``interval`` before the first observations, (member, channel, lat, lon).
        observations: the sources of each analysis time.
        interval: between analyses, in the model's time.
        generator: of everything the method draws.

    Raises:
        FloatingPointError: naming the turn at which a member stopped being finite.
    """
    members = start
    for turn, sources in enumerate(observations):
        forecast = model.step(members, interval)
        ensemble = forecast if len(forecast) > 1 else None
        problem = Problem(model.shape, tuple(sources), forecast.mean(dim=0), ensemble)
        members = method.analyse(problem, len(forecast), generator)
        if not bool(torch.isfinite(members).all()):
            raise FloatingPointError(f"turn {turn} of the cycle: a member stopped being finite")
        yield Cycled(forecast, members)
