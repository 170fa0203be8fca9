"""The nature run's time axis: years, splits, and the independent integrations ("streams") that fill it.

``years`` training years, one validation year and one test year follow each other as blocks of 365 days, so that every
split sees every season. Frames are 12 h apart; the first lies 12 h after the start. The last ten days before the
split changes belong to no split ("gap").

The axis may be filled by several streams, each from its own seed with its own spin-up ending where its part begins:
they run side by side (processes, or members of one vectorised model) and share no history at all. The truth jumps
from one stream to the next; the coordinate ``stream`` says where.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAYS_PER_YEAR = 365
FRAMES_PER_DAY = 2
GAP_DAYS = 10
SPIN_UP_DAYS = 90
CHUNK_DAYS = 5
START = np.datetime64("2001-01-01T00", "h")
SPLITS = ("train", "validation", "test", "gap")


@dataclass(frozen=True)
class Stream:
    """One uninterrupted integration.

    Attributes:
        name: "truth-0", "truth-1", … or "source", the run that only supplies initial perturbations.
        seed: of the initial pressure perturbation.
        start: date of the first state kept, after the spin-up.
        days: length after the spin-up.
        offset: index of its first frame on the time axis; None where the frames are not kept.
        spin_up: days integrated before ``start`` and dropped.
    """

    name: str
    seed: int
    start: np.datetime64
    days: int
    offset: int | None
    spin_up: int = SPIN_UP_DAYS


@dataclass(frozen=True)
class Timeline:
    """The whole axis.

    Args:
        years: training years.
        seed: of the experiment; each stream's own seed derives from it and the stream's number alone.
        members: number of independent streams; whole years are dealt out as evenly as they go.
        year_days: length of a "year" (tests use shorter ones), a multiple of the chunk of 5 days.
        spin_up: days dropped before each stream.

    Raises:
        ValueError: for fewer than one year or member, more members than years, or an uneven year.
    """

    years: int
    seed: int
    members: int = 1
    year_days: int = DAYS_PER_YEAR
    spin_up: int = SPIN_UP_DAYS

    def __post_init__(self) -> None:
        if self.years < 1:
            raise ValueError(f"years: found {self.years}, expected at least 1")
        if not 1 <= self.members <= self.years + 2:
            raise ValueError(f"members: found {self.members}, expected 1 to {self.years + 2}, the number of years")
        if self.year_days % CHUNK_DAYS or self.year_days <= GAP_DAYS:
            raise ValueError(f"year_days: found {self.year_days}, expected a multiple of {CHUNK_DAYS} above {GAP_DAYS}")
        if self.spin_up % CHUNK_DAYS or self.spin_up < 0:
            raise ValueError(f"spin_up: found {self.spin_up}, expected a multiple of {CHUNK_DAYS}")
        if self.seed < 0:
            raise ValueError(f"seed: found {self.seed}, expected a number that is not negative")

    @property
    def days(self) -> int:
        return (self.years + 2) * self.year_days

    @property
    def time(self) -> NDArray[np.datetime64]:
        """Verification times of all frames, 12 h apart."""
        step = np.timedelta64(24 // FRAMES_PER_DAY, "h")
        return np.asarray(START + step * np.arange(1, self.days * FRAMES_PER_DAY + 1))

    @property
    def split(self) -> NDArray[np.str_]:
        """One of :data:`SPLITS` for each frame."""
        blocks = np.array(["train"] * self.years + ["validation", "test"])
        per_year = self.year_days * FRAMES_PER_DAY
        labels = np.repeat(blocks, per_year).astype("U10")
        for year in range(len(blocks) - 1):
            if blocks[year] != blocks[year + 1]:
                labels[(year + 1) * per_year - GAP_DAYS * FRAMES_PER_DAY : (year + 1) * per_year] = "gap"
        return labels

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The truth streams, in the order of time."""
        parts = np.array_split(np.arange(self.years + 2), self.members)
        return tuple(
            Stream(
                name=f"truth-{k}",
                seed=self._stream_seed(k),
                start=START + np.timedelta64(24 * int(part[0]) * self.year_days, "h"),
                days=part.size * self.year_days,
                offset=int(part[0]) * self.year_days * FRAMES_PER_DAY,
                spin_up=self.spin_up,
            )
            for k, part in enumerate(parts)
        )

    @property
    def source(self) -> Stream:
        """The separate run of one year that supplies initial perturbations and nothing else."""
        return Stream("source", self._stream_seed(1_000_000), START, self.year_days, None, self.spin_up)

    @property
    def stream_of_frame(self) -> NDArray[np.int16]:
        """Number of the stream each frame belongs to."""
        return np.concatenate([np.full(s.days * FRAMES_PER_DAY, k, dtype=np.int16) for k, s in enumerate(self.streams)])

    def _stream_seed(self, number: int) -> int:
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0] >> 1)
