"""Units that files of observations come in: value in SI = factor · value + offset."""

from __future__ import annotations

import math

Conversion = tuple[float, float]

_DEGREES = ("degree", "degrees", "deg", "°")
_WAYS = ("_north", "_east", "_N", "_E", "N", "E")
_SPELLED: dict[str, dict[Conversion, tuple[str, ...]]] = {
    "temperature": {
        (1.0, 0.0): ("K", "kelvin"),
        (1.0, 273.15): ("degC", "°C", "C", "celsius", "degree_Celsius", "degrees_Celsius"),
        (5.0 / 9.0, 459.67 * 5.0 / 9.0): ("degF", "°F", "F", "fahrenheit"),
    },
    "pressure": {
        (1.0, 0.0): ("Pa", "pascal"),
        (100.0, 0.0): ("hPa", "mb", "mbar", "millibar"),
        (1000.0, 0.0): ("kPa",),
        (3386.389, 0.0): ("inHg",),
    },
    "speed": {
        (1.0, 0.0): ("m/s", "m s-1", "m s**-1", "meter/sec", "meters/second", "meter/second"),
        (1852.0 / 3600.0, 0.0): ("kt", "kts", "knot", "knots"),
        (1.0 / 3.6, 0.0): ("km/h",),
        (0.44704, 0.0): ("mph",),
    },
    "length": {
        (1.0, 0.0): ("m", "meter", "meters", "metre", "metres", "gpm"),
        (10.0, 0.0): ("dam", "gpdm"),
        (1000.0, 0.0): ("km",),
        (0.3048, 0.0): ("ft", "feet"),
    },
    "angle": {
        (1.0, 0.0): (*_DEGREES, *(f"{name}{way}" for name in _DEGREES[:2] for way in _WAYS)),
        (180.0 / math.pi, 0.0): ("radians", "radian", "rad"),
    },
    "direction": {(1.0, 0.0): (*_DEGREES, "degree_true", "degrees_true")},
    "fraction": {(1.0, 0.0): ("1",), (0.01, 0.0): ("%", "percent", "per cent")},
    "ratio": {(1.0, 0.0): ("kg/kg", "kg kg-1", "1"), (1e-3, 0.0): ("g/kg", "g kg-1")},
    "geopotential": {(1.0, 0.0): ("m2 s-2", "m2/s2", "m**2 s**-2", "J/kg")},
}
KINDS: dict[str, tuple[str, ...]] = {
    "geopotential": ("geopotential",),
    "height": ("length",),
    "latitude": ("angle",),
    "longitude": ("angle",),
    "elevation": ("length",),
    "pressure": ("pressure", "length"),
    "temperature": ("temperature",),
    "dewpoint": ("temperature",),
    "dewpoint_depression": ("temperature",),
    "u": ("speed",),
    "v": ("speed",),
    "wind_speed": ("speed",),
    "wind_direction": ("direction",),
    "specific_humidity": ("ratio",),
    "mixing_ratio": ("ratio",),
    "relative_humidity": ("fraction",),
    "pressure_at_sea_level": ("pressure",),
}
"""Kinds of unit that a quantity may come in; a pressure in units of length is a pressure altitude."""


def conversion(quantity: str, units: str | None, where: str) -> tuple[str, Conversion]:
    """The kind of a unit and how it becomes SI.

    Args:
        quantity: a key of :data:`KINDS`.
        units: as written in a file or a column map; None where neither says.
        where: what to call it in the error.

    Raises:
        ValueError: for a unit that the quantity does not come in.
    """
    known = [(kind, pair, names) for kind in KINDS[quantity] for pair, names in _SPELLED[kind].items()]
    for kind, pair, names in known:
        if units in names:
            return kind, (pair[0], 0.0) if quantity == "dewpoint_depression" else pair
    expected = ", ".join(names[0] for _, _, names in known)
    found = "no units" if units is None else f"units {units!r}"
    raise ValueError(f"{where}: found {found} for {quantity.replace('_', ' ')}, expected one of {expected}")
