"""Twin experiments on the sphere: one truth, one background, one set of observations and one R for every method.

Everything a method sees is in normalised anomalies of the prior's climatology. The background has the mean error of the training
backgrounds removed, for every method alike; only the row ``background`` shows it as it came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genda.benchmark.archive import Archive, open_archive
from genda.benchmark.classical import TrainingErrors, classical_method, homogeneous_errors, mean_error, selected
from genda.benchmark.generative import FusionSpec, fusion_method
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
    FieldSpec,
    Network,
    PlainSpec,
    TwinMethodSpec,
    TwinSuite,
    VariationalSpec,
)
from genda.checkpoint import check_model
from genda.diffusion.noise import derived_seed
from genda.forecast.backgrounds import LEADS
from genda.forecast.incremental import check_forecasts, forecast_from_truth
from genda.forecast.store import Run
from genda.methods.interpolation import interpolate
from genda.problem import Problem, Source
from genda.sources import coarse_field
from genda.state import State, nonnegative, season
from genda.state_methods import make_method
from genda.verify import Statistics, field_statistics, scores
from genda.verify.scores import Array


@dataclass(frozen=True)
class TwinExperiment(OnArchive):
    """The experiment of a twin suite.

    Attributes:
        suite: what to do.
        data: a nature run; the shipped sample case where None.
    """

    suite: TwinSuite
    data: Path | None = None
    _archive: Archive = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_archive", open_archive(self.data, self.suite.split))

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """Dates, evenly spread over those that have all that the methods need.

        Raises:
            ValueError: for too few, for one inside the prior's training period, or for what would fail on every date.
        """
        check_lead(self.suite)
        ensemble = self.suite.ensembles or self.suite.takes_ensembles
        if self.suite.takes_ensembles and self.suite.lead != min(LEADS):
            found = f"found {self.suite.lead} h with rows that take an ensemble, expected {min(LEADS)}, which ensembles are for"
            raise ValueError(f"suite {self.suite.suite}: lead: {found}")
        times = self._archive.times(ensemble)
        if len(times) < self.suite.dates:
            what = f"{self.suite.split} dates with a background" + (" and an ensemble" if ensemble else "")
            raise ValueError(f"suite {self.suite.suite}: found {len(times)} {what}, expected {self.suite.dates}")
        if ensemble and self._archive.members < 2:
            found = f"found ensembles of {self._archive.members} member, expected at least 2"
            raise ValueError(f"suite {self.suite.suite}: {found}")
        chosen = times[np.linspace(0, len(times) - 1, self.suite.dates).round().astype(int)]
        self._check_dates(chosen)
        if self.suite.forecast_hours is not None:
            check_forecasts(self._run, chosen, self.channels, self.suite.forecast_hours // 24)
        return tuple(str(time) for time in np.datetime_as_string(chosen, "h"))

    def decides(self, spec: TwinMethodSpec, scenario: str) -> list[object]:
        """Everything but the date that the numbers of a method depend on."""
        suite = self.suite
        return [
            "twin",
            self._fingerprint,
            check_model(suite.prior).sha256,
            suite.lead,
            suite.pairs,
            suite.seed,
            suite.members if isinstance(spec, FusionSpec) else None,
            [network.model_dump(mode="json") for network in suite.scenarios[scenario]],
            resolved(spec, suite.members) if isinstance(spec, LatentSpec) else spec.model_dump(mode="json"),
            *(weights_of(spec) if isinstance(spec, LatentSpec) else ()),
            *([] if suite.forecast_hours is None else [{"forecast_hours": suite.forecast_hours}]),
        ]

    def run(self, spec: TwinMethodSpec, scenario: str, case: str) -> Statistics:
        """Analyse one date with one method and score it against the truth.

        Raises:
            FloatingPointError: for an analysis that is not finite.
        """
        time = np.datetime64(case, "ns")
        times = np.array([time])
        truth = self._archive.truth(time).select(self.channels)
        values = self._members(spec, scenario, truth)
        if not bool(torch.isfinite(values).all()):
            raise FloatingPointError("the analysis is not finite")
        physical = nonnegative(self.model.normalisation.physical(values.unsqueeze(0), times), self.channels)
        forecast = physical if len(values) > 1 else physical[:, 0]
        statistics = field_statistics(
            forecast,
            truth.values,
            times=times,
            channels=self.channels,
            grid=self.model.grid,
            std=self.std,
            climate=self.model.normalisation.mean_at(times),
            antithetic=isinstance(spec, LatentSpec) and antithetic(spec),
        )
        more, hours = {}, self.suite.forecast_hours
        if len(values) > 1:
            more["observation_misfit"] = np.full((1, 1), misfit(values, self._sources(scenario, truth)))
        if hours is not None:
            more["forecast_squared_error"] = self._forecast_error(self._run, hours, physical[0].mean(dim=0), truth)
        return replace(statistics, values={**statistics.values, **more})

    def _forecast_error(self, run: Run, hours: int, analysis: Tensor, truth: State) -> Array:
        """Squared error of the forecast from an analysis (channel, lat, lon), shape (1, channel)."""
        time, days = truth.times[0], hours // 24
        change = (analysis - truth.values[0]).double().numpy()
        found = torch.as_tensor(forecast_from_truth(run, time, change, self.channels, days))
        later = self._archive.truth(time + np.timedelta64(hours, "h")).select(self.channels)
        return scores.mse(found, later.values[0], self.model.grid.area_weights).numpy()[None]

    def _members(self, spec: TwinMethodSpec, scenario: str, truth: State) -> Tensor:
        """Analysis in normalised anomalies, (member, channel, lat, lon)."""
        time = truth.times[0]
        if isinstance(spec, PlainSpec) and spec.method in ("background", "unbiased"):
            return self._background(time, corrected=spec.method == "unbiased")
        if isinstance(spec, PlainSpec) and spec.method == "climatology":
            return torch.zeros(1, *self._shape)
        if isinstance(spec, PlainSpec) and spec.method == "ensemble":
            return self._ensemble(time)
        generator = torch.Generator().manual_seed(derived_seed(self.suite.seed, time, "members"))
        networks = self.suite.scenarios[scenario]
        if isinstance(spec, PlainSpec) and spec.method == "bicubic":
            return self._interpolated(networks, truth)
        sources = self._sources(scenario, truth)
        if isinstance(spec, PlainSpec):
            method = make_method("optimal-interpolation", self.model)
            return method.analyse(Problem(self._shape, sources), 1, generator)
        if isinstance(spec, FusionSpec):
            return self._fused(spec, sources, time, generator)
        if isinstance(spec, LatentSpec):
            return self._latent(spec, sources, truth, generator)
        linear = all(source.operator.linear for source in sources)
        method = classical_method(spec, self._training, linear)
        if isinstance(spec, VariationalSpec):
            return method.analyse(Problem(self._shape, sources, background=self._background(time)[0]), 1, generator)
        members = self._ensemble(time)
        return method.analyse(Problem(self._shape, sources, ensemble=members), len(members), generator)

    @property
    def _run(self) -> Run:
        if self._archive.run is None:
            raise ValueError("forecast_hours: found no nature run, expected one with its modal states (--data)")
        return self._archive.run

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (len(self.channels), *self.model.grid.shape)

    @cached_property
    def _training(self) -> TrainingErrors:
        return TrainingErrors(self.data, self.suite.prior, self.suite.lead, self.suite.pairs)

    def _normalised(self, values: Tensor, time: np.datetime64) -> Tensor:
        """Physical (member, channel, lat, lon) on the archive's channels to normalised anomalies."""
        return self.model.normalisation.normalise(values.unsqueeze(0), np.array([time]))[0].float()

    def _background(self, time: np.datetime64, corrected: bool = True) -> Tensor:
        values = self._archive.background(time, self.suite.lead).select(self.channels).values
        x = self._normalised(values, time)
        return x - mean_error(self._training) if corrected else x

    def _ensemble(self, time: np.datetime64) -> Tensor:
        """Members about the corrected background, (member, channel, lat, lon)."""
        members = selected(self._archive, self._archive.ensemble(time), self.channels)
        background = self._archive.background(time, self.suite.lead).select(self.channels).values
        members = members - members.mean(dim=0) + background
        return self._normalised(members, time) - mean_error(self._training)

    def _sources(self, scenario: str, truth: State) -> tuple[Source, ...]:
        networks = self.suite.scenarios[scenario]
        return tuple(self._source(network, truth, k) for k, network in enumerate(networks))

    def _source(self, network: Network, truth: State, number: int) -> Source:
        """Observations of the truth, the same for every method."""
        x = self._normalised(truth.values, truth.times[0])
        return observed(network, self.model, x, truth.times[0], self.suite.seed, number)

    def _interpolated(self, networks: tuple[Network, ...], truth: State) -> Tensor:
        fields = [network for network in networks if isinstance(network, FieldSpec)]
        if not fields:
            raise ValueError("bicubic: found no field among the networks, expected one to interpolate")
        coarse_state = coarse_field(truth, fields[0].factor)
        return self._normalised(interpolate(coarse_state, self.model.grid).values, truth.times[0])

    def _fused(
        self, spec: FusionSpec, sources: tuple[Source, ...], time: np.datetime64, generator: torch.Generator
    ) -> Tensor:
        errors = homogeneous_errors(self._training, spec.background_inflation) if spec.background else None
        method = fusion_method(spec, self.model, sources, errors)
        problem = Problem(
            self._shape,
            () if spec.guidance == "none" else sources,
            background=self._background(time)[0] if spec.background else None,
            condition=season(np.array([time]))[0],
            time=str(time),
        )
        return method.analyse(problem, spec.members or self.suite.members, generator)

    def _latent(
        self, spec: LatentSpec, sources: tuple[Source, ...], truth: State, generator: torch.Generator
    ) -> Tensor:
        """About the background as it came: the prior knows the mean error."""
        lead, times = self.suite.lead, truth.times
        model = latent_model_of(spec.model)
        background = self._background(times[0], corrected=False)[0]
        condition = model.condition(times, lead)[0]
        if spec.method == "latent-floor":
            about = model.prior(lead).about(background, condition)
            return about.decode(about.encode(self._normalised(truth.values, times[0])))
        problem = Problem(
            self._shape,
            () if spec.method == "latent-prior" else sources,
            background=background,
            ensemble=None if spec.ensemble is None else self._ensemble(times[0]),
            condition=condition,
            time=str(times[0]),
        )
        members = spec.members or self.suite.members
        return latent_method(spec, lead).analyse(problem, members, generator)
