"""Quality flags and level types of the observation table.

Numbers up to 39 are those of the JEDI Unified Forward Operator, so that a table exchanged with an operational
system keeps its meaning; 40 and above are this package's own.
"""

from __future__ import annotations

from enum import IntEnum


class Labelled(IntEnum):
    """Numbers with names."""

    @property
    def label(self) -> str:
        """Lower-case name used in summaries."""
        return self.name.lower()


class Flag(Labelled):
    """Why an observation is, or is not, used. Only ``PASS`` is assimilated."""

    PASS = 0
    PASSIVE = 1
    """Monitored: compared with the background and the analysis, never assimilated."""
    MISSING = 10
    """The value, or a coordinate needed to use it, was not reported."""
    BOUNDS = 12
    """Physically implausible, or not convertible to the table's units."""
    DOMAIN = 13
    """Outside the grid, the levels or the time window, or far from the height of the ground."""
    DENIED = 14
    """On a deny list."""
    OPERATOR_FAILED = 15
    """The observation operator gave no finite value."""
    THINNED = 16
    """A better placed neighbour, or a mean over neighbours, is used instead."""
    BACKGROUND = 19
    """Too far from the background."""
    BUDDY = 22
    """At odds with its neighbours in space and time."""
    PROFILE = 24
    """At odds with the other levels of its sounding."""
    DUPLICATE = 40
    """Reported before in the same table."""


class LevelType(Labelled):
    """What makes a level of a sounding worth reporting; of several reasons the first in this order."""

    UNKNOWN = 0
    SURFACE = 1
    STANDARD = 2
    """A mandatory pressure level (1000, 925, 850, 700 hPa …)."""
    TROPOPAUSE = 3
    SIGNIFICANT = 4
    """A turn of the profile, or any other level of a report of high resolution."""
