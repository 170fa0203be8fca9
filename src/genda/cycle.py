r"""Forecast, analyse, forecast: what an assimilation method is for.

    x_f(t_k) = M(x_a(t_{k-1})),        x_a(t_k) ~ p(x | x_f(t_k), y_k)

The cycle carries whatever the method returns, one state or an ensemble; a method that reads ``Problem.ensemble`` finds the
members there and every method finds their mean as the background.

With a window of L intervals it is the state at the window's start that is analysed, from the newest observations at its end,

    x_a(t_{k-L}) ~ p(x | x_f(t_{k-L}), y_k),        y_k = H(M_L(x(t_{k-L}))) + ε

and the window then moves on by one interval, so that every observation is used once and each state by its own and the L later
ones. A variational method becomes strong-constraint 4D-Var, an ensemble filter a smoother.

Reference: Bocquet and Sakov 2013, Nonlin. Processes Geophys. 20, 803 (windows that move by one interval, data used once).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genda.forecast import ForecastModel
from genda.methods import Method
from genda.observations.operators import Composed
from genda.problem import Problem, Source


@dataclass(frozen=True)
class Cycled:
    """One turn of the cycle, at the time of its observations.

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
    window: int = 0,
) -> Iterator[Cycled]:
    """Turn by turn, lazily.

    Args:
        model: the forecast model.
        method: the assimilation method.
        start: members at the time of one ``interval`` before the first observations, (member, channel, lat, lon).
        observations: the sources of each analysis time.
        interval: between analyses, in the model's time.
        generator: of everything the method draws.
        window: L, intervals from the state that is analysed to the observations; the first windows begin at ``start``.

    Raises:
        ValueError: for a negative window.
        FloatingPointError: naming the turn at which a member stopped being finite.
    """
    if window < 0:
        raise ValueError(f"window: found {window} intervals, expected 0 or more")
    members = start
    for turn, sources in enumerate(observations):
        if turn >= window:
            members = model.step(members, interval)
        length = min(window, turn + 1)

        def to_end(x: Tensor, time: float = length * interval) -> Tensor:
            return model.step(x, time) if time else x

        if length:
            sources = tuple(replace(s, operator=Composed(to_end, s.operator)) for s in sources)
        forecast = to_end(members)
        _check_finite(turn, members, forecast)
        several = len(members) > 1
        ensemble = members if several else None
        problem = Problem(model.shape, tuple(sources), members.mean(dim=0), ensemble, averaged=several)
        members = method.analyse(problem, len(members), generator)
        analysis = to_end(members)
        _check_finite(turn, analysis)
        yield Cycled(forecast, analysis)


def _check_finite(turn: int, *states: Tensor) -> None:
    if not all(bool(torch.isfinite(state).all()) for state in states):
        raise FloatingPointError(f"turn {turn} of the cycle: a member stopped being finite")
