"""Quantities of a column that are no linear function of the state: wind speed, the logarithm of humidity, a transmittance.

What an anemometer, a lidar and an infrared channel in a water vapour band report, each with the
difficulty that comes with it: a speed has no direction, a logarithm no bottom, and a transmittance nothing more to say of a column
once it is opaque.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genda.variables import STANDARD_GRAVITY
from genda.variables import channels as parse_channels

CALM = 0.1
"""Speed in m/s below which the derivative of wind speed is smoothed."""
DRY = 1e-6
"""Specific humidity in kg/kg below which the logarithm is smoothed, for states may fall below zero."""
OPAQUE = 15.0
"""Column water in kg/m² that leaves 1/e of the radiation."""


@dataclass(frozen=True)
class Quantity:
    """A function of the values of some channels at one place.

    Attributes:
        channels: the channels it reads.
        function: physical values (..., channel) in this order to observed values (..., k).
        error: standard deviation that such an observation may be taken to have, in its own unit.
    """

    channels: tuple[str, ...]
    function: Callable[[Tensor], Tensor]
    error: float


def wind_speed(names: Sequence[str]) -> Quantity:
    """Wind speed in m/s on every level, that of 10 m included, which has both components among the channels ``names``."""
    found = {(channel.field.id, channel.pressure): channel.id for channel in parse_channels(names)}
    across = {"u": "v", "u10": "v10"}
    pairs = [
        (name, found[across[component], pressure])
        for (component, pressure), name in found.items()
        if (across.get(component), pressure) in found
    ]
    if not pairs:
        raise ValueError(f"wind speed: found channels {' '.join(names)}, expected u and v of a level")

    def function(values: Tensor) -> Tensor:
        return (values[..., 0::2] ** 2 + values[..., 1::2] ** 2 + CALM**2).sqrt()

    return Quantity(tuple(name for pair in pairs for name in pair), function, 1.0)


def log_humidity(names: Sequence[str]) -> Quantity:
    """Logarithm of specific humidity in kg/kg on every level that has it."""
    humid, _ = _humidity(names)

    def function(values: Tensor) -> Tensor:
        return math.log(DRY) + (values / (2 * DRY)).asinh()

    return Quantity(humid, function, 0.15)


def transmittance(names: Sequence[str]) -> Quantity:
    """exp(-W / 15 kg m⁻²) of the column water W, by the trapezoidal rule between the levels of specific humidity."""
    humid, pressure = _humidity(names)
    if len(humid) < 2:
        raise ValueError(f"transmittance: found specific humidity on {len(humid)} level, expected at least two")
    steps = pressure.diff().abs()
    depth = 0.5 * (torch.cat([steps, steps.new_zeros(1)]) + torch.cat([steps.new_zeros(1), steps])) / STANDARD_GRAVITY

    def function(values: Tensor) -> Tensor:
        return (-(values @ depth.to(values)).unsqueeze(-1) / OPAQUE).exp()

    return Quantity(humid, function, 0.02)


QUANTITIES: dict[str, Callable[[Sequence[str]], Quantity]] = {
    "wind-speed": wind_speed,
    "log-humidity": log_humidity,
    "transmittance": transmittance,
}
"""By the names that suites know them by."""


def _humidity(names: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Channels of specific humidity and their pressures in Pa, in order of pressure."""
    levels = sorted(
        (channel.pressure, channel.id)
        for channel in parse_channels(names)
        if channel.field.id == "q" and channel.pressure is not None
    )
    if not levels:
        raise ValueError(f"humidity: found channels {' '.join(names)}, expected q of a level")
    pressure, humid = zip(*levels, strict=True)
    return tuple(humid), torch.tensor(pressure, dtype=torch.float64)
