"""What every kind of suite is to the runner and to the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from genda.benchmark.cycled import CycledExperiment
from genda.benchmark.soundings import SoundingExperiment, SoundingSuite
from genda.benchmark.suite import Suite, ToySuite
from genda.benchmark.toys import ToyExperiment
from genda.benchmark.twin import TwinExperiment
from genda.benchmark.twin_suite import CycledSuite
from genda.verify import Statistics
from genda.verify.scores import Array


class Experiment(Protocol):
    """Cases of one or more scenarios, and a method run on one of them."""

    @property
    def channels(self) -> tuple[str, ...]: ...

    @property
    def std(self) -> Array | None:
        """Of each channel, for scores over all of them; None where there are no such units."""
        ...

    @property
    def scenarios(self) -> tuple[str, ...]: ...

    @property
    def cases(self) -> tuple[str, ...]:
        """The same for every scenario and method.

        Raises:
            ValueError: where the data do not hold what the suite asks for.
        """
        ...

    def applies(self, spec: Any, scenario: str) -> bool:
        """Whether a method takes part in a scenario."""
        ...

    def decides(self, spec: Any, scenario: str) -> list[object]:
        """Everything but the case that the numbers of a method depend on."""
        ...

    def run(self, spec: Any, scenario: str, case: str) -> Statistics: ...


def experiment_of(suite: Suite, data: Path | None = None, kept: Path | None = None) -> Experiment:
    """The experiment of a suite.

    Args:
        data: a nature run for twin experiments and cycles, a file of ascents for soundings; what is shipped where None.
        kept: folder of a pair, in which a long run may keep what it needs to go on.

    Raises:
        ValueError, FileNotFoundError: for data that do not go with the suite.
    """
    if isinstance(suite, ToySuite):
        if data is not None:
            raise ValueError(f"data: found {data}, expected none: suite {suite.suite} runs a toy model")
        return ToyExperiment(suite)
    if isinstance(suite, CycledSuite):
        return CycledExperiment(suite, data, kept)
    return SoundingExperiment(suite, data) if isinstance(suite, SoundingSuite) else TwinExperiment(suite, data)
