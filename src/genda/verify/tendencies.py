r"""Tendencies: the change that the equations give a state against that of the truth, equation by equation.

    e² = mean over levels of  <|K(x) - K(y)|²> / <|K(y)|²>,      s² = mean over levels of  <|K(x)|²> / <|K(y)|²>

with K of :mod:`genda.physics.primitive_equations`. A small error of position is a large one of tendencies, and so is wind that does
not fit mass: e is a score of accuracy at the scales that change fast, which a smooth field does well in. The size s tells what is
too calm, below 1, and what is about to ring, above. Whether a state is in balance is told by :mod:`genda.verify.balance`. Of an
ensemble the members are scored. Each level counts in units of its own tendencies, so that none rules the others.

References:
    PhyDA (arXiv 2505.12882), equation 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from genda.grid import LatLonGrid
from genda.physics import PrimitiveEquations
from genda.physics.enforcement import NEEDS, Equation
from genda.physics.fields import LevelFields
from genda.sphere import has_harmonics
from genda.variables import channel
from genda.verify.scores import Array, normalised_weights


def equations(channels: Sequence[str]) -> tuple[str, ...]:
    """Fields whose tendency the channels tell somewhere inside the column, of u, v, t, q, z."""
    try:
        layout = LevelFields(tuple(channels))
    except ValueError:  # a toy model's variables
        return ()
    return tuple(field for field in NEEDS if Equation.of(field, layout).levels)


def tendency_scores(
    fields: Tensor, truth: Tensor, channels: Sequence[str], grid: LatLonGrid, weights: Tensor | Array
) -> tuple[Tensor, Tensor] | None:
    """e² and s² by equation.

    Args:
        fields: physical units, shape (..., channel, lat, lon).
        truth: shape (channel, lat, lon).
        channels: identifiers, in order.
        grid: where the values stand.
        weights: shape (lat,) or (lat, lon).

    Returns:
        each of shape (..., equation) in the order of :func:`equations`, float64; None where channels or grid tell no tendency.
    """
    names = equations(channels)
    if not names or not grid.is_global or not has_harmonics(grid):
        return None
    dynamics = _dynamics(grid, tuple(channels)).to(fields.device)
    y = truth.double().unsqueeze(0)
    where = dynamics.enforced(y)[0] * normalised_weights(weights, truth)
    expected = dynamics(y)[0]
    size = (where * expected**2).sum(dim=(-2, -1))
    found = [dynamics(x.unsqueeze(0))[0] for x in fields.reshape(-1, *truth.shape).double()]
    columns = [
        [i for i, name in enumerate(channels) if channel(name).field.id == field and float(size[i]) > 0]
        for field in names
    ]

    def share(planes: list[Tensor]) -> Tensor:
        levels = torch.stack([(where * plane**2).sum(dim=(-2, -1)) / size for plane in planes])
        by_equation = torch.stack([levels[:, own].mean(dim=1) for own in columns], dim=1)
        return by_equation.view(*fields.shape[:-3], len(names))

    return share([k - expected for k in found]), share(found)


def change_correlation(dynamics: PrimitiveEquations, before: Tensor, after: Tensor, seconds: float) -> Tensor:
    """Correlation over the sphere of what the equations say of a change with the change itself, by channel.

    The mean of the tendencies at both ends stands against the difference of the states over the time between them.

    Args:
        dynamics: K, and where it is asked to hold.
        before, after: states in physical units, shape (channel, lat, lon).
        seconds: the time between them.

    Returns:
        shape (channel,), NaN for channels without a tendency.
    """
    x = torch.stack([before, after]).double()
    told, seen = dynamics.to(x.device)(x).mean(dim=0), (x[1] - x[0]) / seconds
    weight = dynamics.enforced(x).all(dim=0) * torch.as_tensor(dynamics.grid.area_weights).to(x.device).view(-1, 1)
    weight = weight / weight.sum(dim=(1, 2), keepdim=True)
    seen = torch.where(weight > 0, seen, 0.0)  # below the ground there is no change

    def covariance(a: Tensor, b: Tensor) -> Tensor:
        a, b = (v - (weight * v).sum(dim=(1, 2), keepdim=True) for v in (a, b))
        return (weight * a * b).sum(dim=(1, 2))

    return covariance(told, seen) / (covariance(told, told) * covariance(seen, seen)).sqrt()


@lru_cache(maxsize=4)
def _dynamics(grid: LatLonGrid, channels: tuple[str, ...]) -> PrimitiveEquations:
    return PrimitiveEquations(grid, channels)
