"""Quality flags of the observation table.

Numbers up to 39 are those of the JEDI Unified Forward Operator, so that a table exchanged with an operational
system keeps its meaning; 40 and above are this package's own.
"""

from __future__ import annotations

from enum import IntEnum


class Flag(IntEnum):
    """Why an observation is, or is not, used. Only ``PASS`` is assimilated."""

    PASS = 0
    PASSIVE = 1
    """Monitored: compared with the background and the analysis, never assimilated."""
    MISSING = 10
    """The value, or a coordinate needed to use it, was not reported."""
    BOUNDS = 12
    """Physically implausible, or not convertible to the table's units."""
    DOMAIN = 13
    """Outside the grid, the levels or the time window."""
    DENIED = 14
    """On a deny list."""
    OPERATOR_FAILED = 15
    """The observation operator gave no finite value."""
    THINNED = 16
    """A better placed neighbour is used instead."""
    BACKGROUND = 19
    """Too far from the background."""
    DUPLICATE = 40
    """Reported before in the same table."""

    @property
    def label(self) -> str:
        """Lower-case name used in summaries."""
        return self.name.lower()
