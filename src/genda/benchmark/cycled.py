"""Cycles of the general circulation model: every analysis from the forecast of the one before, no truth but the observations.

A cycle is one case. What it keeps of itself (:mod:`genda.benchmark.kept_cycle`) has statistics of every turn; those of a finished
pair are of the turns after the spin-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.benchmark.archive import Archive, open_archive
from genda.benchmark.classical import TrainingErrors, classical_method
from genda.benchmark.kept_cycle import Going, read_cycle, write_cycle
from genda.benchmark.latent import (
    LatentSpec,
    antithetic,
    latent_method,
    latent_model_of,
    resolved,
    weights_of,
)
from genda.benchmark.observing import check_lead, misfit, observed
from genda.benchmark.on_archive import OnArchive
from genda.benchmark.twin_suite import (
    CycledMethodSpec,
    CycledSuite,
    FreeRunSpec,
    QuantitySpec,
    VariationalSpec,
)
from genda.checkpoint import check_model
from genda.cycle import Cycled, cycle
from genda.diffusion.noise import derived_seed
from genda.forecast.backgrounds import VARIANTS, Start, integrated
from genda.forecast.climate import open_nature_run
from genda.forecast.ensembles import cycle_starts
from genda.forecast.general_circulation import GeneralCirculation, Standing, normalised
from genda.forecast.incremental import channels_at_end, check_forecasts, single_model
from genda.forecast.nature import GcmState, NatureModel
from genda.forecast.store import Run
from genda.latent_methods import DETERMINISTIC
from genda.latent_model import LatentModel
from genda.methods import Method
from genda.methods.baseline import Persistence
from genda.problem import Problem, Source
from genda.state import nonnegative
from genda.verify import Statistics, field_statistics

VARIANT = "b"
"""Of the imperfect model and of the first perturbations, see :mod:`genda.forecast.backgrounds`."""
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class CycledExperiment(OnArchive):
    """The experiment of a cycled suite.

    Attributes:
        suite: what to do.
        data: a nature run with its modal states.
        kept: where a cycle keeps what it needs to go on; None keeps nothing.
    """

    suite: CycledSuite
    data: Path | None
    kept: Path | None = None
    _archive: Archive = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.data is None:
            raise ValueError(
                f"suite {self.suite.suite}: found no nature run, expected one with its modal states (--data), which genda "
                "nature-run makes: the model itself is cycled"
            )
        object.__setattr__(self, "_archive", open_archive(self.data, self.suite.split))

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """Times of the first forecasts.

        Raises:
            ValueError, FileNotFoundError, ModuleNotFoundError: for what would fail in every cycle.
        """
        suite, run = self.suite, self._run
        check_lead(suite)
        starts = [np.datetime64(day, "ns") for day in suite.starts]
        times = np.concatenate([start + DAY * np.arange(suite.turns + 1) for start in starts])
        inside = open_nature_run(run.out, suite.split).time.values
        outside = times[~np.isin(times, inside)]
        if outside.size:
            raise ValueError(f"suite {suite.suite}: found {outside[0]}, expected days of split {suite.split} alone")
        self._check_dates(times)
        for start in starts:
            check_forecasts(run, np.array([start]), self.channels, suite.turns)
            cycle_starts(run, start, suite.members, suite.seed, VARIANT)
        return tuple(str(np.datetime_as_string(start, "h")) for start in starts)

    def decides(self, spec: CycledMethodSpec, scenario: str) -> list[object]:
        """Everything but the start that the numbers of a method depend on."""
        suite = self.suite
        return [
            "cycled",
            self._fingerprint,
            check_model(suite.prior).sha256,
            *(suite.lead, suite.pairs, suite.seed, suite.turns, suite.spin_up, self._members(spec)),
            [network.model_dump(mode="json") for network in suite.scenarios[scenario]],
            resolved(spec, suite.members) if isinstance(spec, LatentSpec) else spec.model_dump(mode="json"),
            *(weights_of(spec) if isinstance(spec, LatentSpec) else ()),
        ]

    def run(self, spec: CycledMethodSpec, scenario: str, case: str) -> Statistics:
        """Cycle one method from one start, or go on with what is kept of it.

        Returns:
            statistics of the analyses after the spin-up, and squared errors and spread of the forecasts they were made from.

        Raises:
            FloatingPointError: for a forecast or an analysis that is not finite.
        """
        start, model = np.datetime64(case, "ns"), single_model(self._run.grid)
        starts = cycle_starts(self._run, start, self._members(spec), self.suite.seed, VARIANT)
        strength = np.stack([member.strength for member in starts])
        file = None if self.kept is None else self.kept / f"{case}.turns.npz"
        known = file is not None and file.exists()
        going = read_cycle(file, model, self.channels) if file and known else self._started(model, starts, start)
        if going.standing is not None:
            gcm = GeneralCirculation(model, self.model.normalisation, self.channels, strength, going.standing)
            times = start + DAY * np.arange(going.turns + 1, self.suite.turns + 1)
            sources = self._sources(scenario, times)
            turns = cycle(gcm, self._method(spec, scenario, gcm), going.analysis, sources, 1.0, going.generator)
            for time, turn in zip(times, turns, strict=True):
                found = self._judged(spec, scenario, time, turn)
                found = found if going.statistics is None else going.statistics.merge(found)
                going = replace(going, standing=gcm.standing, analysis=turn.analysis, statistics=found)
                if file is not None:
                    write_cycle(file, model, going, finished=going.turns == self.suite.turns)
        assert going.statistics is not None
        return going.statistics.only(going.statistics.samples[self.suite.spin_up :])

    def _started(self, model: NatureModel, starts: Sequence[Start], time: np.datetime64) -> Going:
        """Members' forecasts from a perturbed truth three days before, valid at the start of the cycle."""
        states: list[GcmState] = []
        values = []
        for member in starts:
            state, (fields,) = integrated(self._run, model, [member], VARIANTS[VARIANT].alpha)
            states.append(state)
            values.append(channels_at_end(fields, self.channels))
        shown = normalised(self.model.normalisation, np.stack(values), time)
        generator = torch.Generator().manual_seed(derived_seed(self.suite.seed, time, "members"))
        return Going(Standing(tuple(states), shown, time), shown, generator, None)

    @property
    def _run(self) -> Run:
        assert self._archive.run is not None
        return self._archive.run

    def _members(self, spec: CycledMethodSpec) -> int:
        if isinstance(spec, LatentSpec):
            return 1 if spec.method in DETERMINISTIC else spec.members or self.suite.members
        return 1 if isinstance(spec, FreeRunSpec | VariationalSpec) else self.suite.members

    def _method(self, spec: CycledMethodSpec, scenario: str, gcm: GeneralCirculation) -> Method:
        if isinstance(spec, FreeRunSpec):
            return Persistence()
        if isinstance(spec, LatentSpec):
            method, model = latent_method(spec, self.suite.lead), latent_model_of(spec.model)
            return _Timed(method, model, self.suite.lead, gcm, spec.ensemble is not None)
        training = TrainingErrors(self.data, self.suite.prior, self.suite.lead, self.suite.pairs)
        linear = not any(isinstance(network, QuantitySpec) for network in self.suite.scenarios[scenario])
        return classical_method(spec, training, linear)

    def _sources(self, scenario: str, times: NDArray[np.datetime64]) -> Iterator[tuple[Source, ...]]:
        networks = self.suite.scenarios[scenario]
        for time in times:
            x = normalised(self.model.normalisation, self._truth(time).numpy(), time)
            yield tuple(
                observed(network, self.model, x, time, self.suite.seed, k) for k, network in enumerate(networks)
            )

    def _truth(self, time: np.datetime64) -> Tensor:
        """Physical, shape (1, channel, lat, lon)."""
        return self._archive.truth(time).select(self.channels).values

    def _judged(self, spec: CycledMethodSpec, scenario: str, time: np.datetime64, turn: Cycled) -> Statistics:
        analysis, forecast = (self._scored(spec, time, members) for members in (turn.analysis, turn.forecast))
        more = {
            f"forecast_{name}": forecast.values[name]
            for name in ("squared_error", "squared_spread")
            if name in forecast.values
        }
        if len(turn.analysis) > 1:
            (sources,) = self._sources(scenario, np.array([time]))
            more["observation_misfit"] = np.full((1, 1), misfit(turn.analysis, sources))
        return replace(analysis, values={**analysis.values, **more})

    def _scored(self, spec: CycledMethodSpec, time: np.datetime64, members: Tensor) -> Statistics:
        times = np.array([time])
        physical = nonnegative(self.model.normalisation.physical(members.unsqueeze(0), times), self.channels)
        return field_statistics(
            physical if len(members) > 1 else physical[:, 0],
            self._truth(time),
            times=times,
            channels=self.channels,
            grid=self.model.grid,
            std=self.std,
            climate=self.model.normalisation.mean_at(times),
            antithetic=isinstance(spec, LatentSpec) and len(members) > 1 and antithetic(spec),
        )


@dataclass(frozen=True)
class _Timed:
    """A latent method told the time of each analysis.

    Attributes:
        method: about backgrounds of one lead.
        model, lead: of its prior.
        clock: whose standing is the analysis time.
        sees_members: whether it is shown the members of the background beside their mean.
    """

    method: Method
    model: LatentModel
    lead: int
    clock: GeneralCirculation
    sees_members: bool

    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        time = self.clock.standing.time
        told = replace(
            problem,
            ensemble=problem.ensemble if self.sees_members else None,
            condition=self.model.condition(np.array([time]), self.lead)[0],
            time=str(time),
        )
        return self.method.analyse(told, members, generator)
