"""The one table of atmospheric variables: identifiers, names, units and plausible bounds.

A *field* is a physical quantity ("temperature"); a *channel* is a field at a level ("t850") or at the
surface ("t2m"). Channel identifiers follow Earth2Studio, long names WeatherBench 2, attributes CF.
Nothing else in the package knows a variable's name or unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

STANDARD_GRAVITY = 9.80665
"""m s⁻², the constant that turns geopotential height into geopotential (WMO)."""
GAS_CONSTANT = 287.05
"""J kg⁻¹ K⁻¹, dry air."""


@dataclass(frozen=True)
class Field:
    """A physical quantity, on pressure levels or at the surface.

    Attributes:
        id: short identifier, also the prefix of level channels ("t" in "t850").
        name: WeatherBench 2 / ARCO-ERA5 name.
        standard_name: CF standard name.
        units: SI units as written in files.
        bounds: smallest and largest plausible value anywhere on Earth below 1 hPa.
        on_levels: whether the field lives on pressure levels.
        aliases: other identifiers read as this one.
        nonnegative: whether a value below zero is impossible; analyses are cut off there.
    """

    id: str
    name: str
    standard_name: str
    units: str
    bounds: tuple[float, float]
    on_levels: bool
    aliases: tuple[str, ...] = ()
    nonnegative: bool = False


FIELDS: tuple[Field, ...] = (
    Field("z", "geopotential", "geopotential", "m2 s-2", (-6.0e3, 5.0e5), True, ("phi",)),
    Field("t", "temperature", "air_temperature", "K", (150.0, 350.0), True),
    Field("u", "u_component_of_wind", "eastward_wind", "m s-1", (-180.0, 180.0), True),
    Field("v", "v_component_of_wind", "northward_wind", "m s-1", (-180.0, 180.0), True),
    Field("q", "specific_humidity", "specific_humidity", "kg kg-1", (-1.0e-3, 0.06), True, nonnegative=True),
    Field("t2m", "2m_temperature", "air_temperature", "K", (170.0, 345.0), False, ("2t", "t2")),
    Field("u10", "10m_u_component_of_wind", "eastward_wind", "m s-1", (-90.0, 90.0), False, ("u10m", "10u")),
    Field("v10", "10m_v_component_of_wind", "northward_wind", "m s-1", (-90.0, 90.0), False, ("v10m", "10v")),
    Field(
        "msl",
        "mean_sea_level_pressure",
        "air_pressure_at_mean_sea_level",
        "Pa",
        (8.5e4, 1.12e5),
        False,
        ("mslp", "prmsl"),
    ),
)

STATIC_FIELDS: tuple[Field, ...] = (
    Field(
        "geopotential_at_surface",
        "geopotential_at_surface",
        "surface_geopotential",
        "m2 s-2",
        (-6.0e3, 9.0e4),
        False,
    ),
    Field("lsm", "land_sea_mask", "land_binary_mask", "1", (0.0, 1.0), False),
)
"""Maps that never change, which a network may be given beside a state; no channels."""

_BY_ID = {key: field for field in FIELDS for key in (field.id, field.name, *field.aliases)}
_LEVEL_CHANNEL = re.compile(r"([a-z]+)(\d{1,4})")


@dataclass(frozen=True)
class Channel:
    """One horizontal slice of a state: a field at a pressure level, or at the surface (``level_hpa`` None)."""

    field: Field
    level_hpa: int | None

    @property
    def id(self) -> str:
        return self.field.id if self.level_hpa is None else f"{self.field.id}{self.level_hpa}"

    @property
    def pressure(self) -> float | None:
        """Pressure of the level in Pa; None at the surface."""
        return None if self.level_hpa is None else 100.0 * self.level_hpa


def field(name: str) -> Field:
    """The field of an identifier, WeatherBench 2 name or alias.

    Raises:
        ValueError: for a name the table does not hold.
    """
    try:
        return _BY_ID[name]
    except KeyError:
        known = ", ".join(f.id for f in FIELDS)
        raise ValueError(f"unknown variable {name!r}: expected one of {known}, their names or aliases") from None


def channel(name: str) -> Channel:
    """Parse a channel identifier such as ``"z500"``, ``"t2m"`` or the alias ``"u10m"``.

    Raises:
        ValueError: for an unknown field, or a level given to a surface field or missing from a level field.
    """
    known = _BY_ID.get(name)
    if known is not None and not known.on_levels:
        return Channel(known, None)
    if known is not None:
        raise ValueError(f"channel {name!r} has no level: expected for example {known.id}500")
    match = _LEVEL_CHANNEL.fullmatch(name)
    parsed = _BY_ID.get(match[1]) if match else None
    if match is None or parsed is None or not parsed.on_levels:
        raise ValueError(
            f"unknown channel {name!r}: expected a field and a level in hPa (z500), or a surface field (t2m)"
        )
    return Channel(parsed, int(match[2]))


def channels(names: Iterable[str]) -> tuple[Channel, ...]:
    """Parse a list of channel identifiers, refusing duplicates.

    Raises:
        ValueError: as :func:`channel`, and for an identifier that occurs twice.
    """
    parsed = tuple(channel(name) for name in names)
    if len(set(parsed)) != len(parsed):
        repeated = sorted({c.id for c in parsed if parsed.count(c) > 1})
        raise ValueError(f"channels named more than once: {', '.join(repeated)}")
    return parsed


def _level_channels(levels: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{f.id}{level}" for f in FIELDS if f.on_levels for level in levels)


SURFACE_CHANNELS = tuple(f.id for f in FIELDS if not f.on_levels)
ERA5_LEVELS = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50)
EMBEDDED_LEVELS = (850, 700, 500, 300, 200)
ERA5_CHANNELS = _level_channels(ERA5_LEVELS) + SURFACE_CHANNELS
"""The 69 channels of the ERA5 configuration: z t u v q on 13 levels, then t2m u10 v10 msl."""
EMBEDDED_CHANNELS = _level_channels(EMBEDDED_LEVELS) + SURFACE_CHANNELS
"""The 29 channels of the embedded experiment: z t u v q on 5 levels, then t2m u10 v10 msl."""
HEADLINE_CHANNELS = ("z500", "t850", "t2m", "u10", "v10", "u500", "v500", "q700", "msl")
"""What tables and pictures show where there are too many channels for a page: those of the PhyDA paper's Table 1, and msl."""


def chosen_channels(text: str) -> tuple[str, ...]:
    """Channels as a command or a configuration names them: embedded, era5, or identifiers separated by commas.

    Raises:
        ValueError: as :func:`channels`.
    """
    sets = {"embedded": EMBEDDED_CHANNELS, "era5": ERA5_CHANNELS}
    try:
        return tuple(c.id for c in channels(sets.get(text) or (name.strip() for name in text.split(","))))
    except ValueError as error:
        raise ValueError(f"{error} (or one of the sets {', '.join(sets)})") from None
