"""Real ascents: some stations assimilated, the others withheld to judge by.

Disjoint parts of the stations are withheld in turn; checks, errors and the mapping between climates see the rest alone, and are the
same for every method. Errors at withheld stations include those of their observations.

Ascents come without a forecast. For methods that need one, some of the parts that are not withheld make a background by optimal
interpolation, and what these methods assimilate are the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from genda import assimilation as library
from genda.assets import DEMO_OBSERVATIONS
from genda.benchmark.generative import FusionSpec, check_base, fusion_method, model_of
from genda.benchmark.latent import LatentSpec, check_latent, latent_method, latent_model_of, resolved, weights_of
from genda.benchmark.twin_suite import SuiteName
from genda.checkpoint import Model, check_model
from genda.documents import Strict
from genda.latent_methods import LATENT_METHODS
from genda.latent_model import LatentModel
from genda.methods import Method
from genda.observations.climate import ClimateMapping
from genda.observations.flags import Flag
from genda.observations.read import read_observations
from genda.problem import Source
from genda.sources import add_representativeness, climatology, observe, point_source
from genda.state import State
from genda.state_methods import make_method
from genda.usable import as_reported, usable_observations
from genda.variables import channels as parse_channels
from genda.verify import Statistics, station_statistics
from genda.verify.scores import Array

PARTS = 10
"""Into which the stations are dealt; one is withheld at a time."""
INTERPOLATED = ("optimal-interpolation", "background", *LATENT_METHODS)
"""Methods of rows that are or begin with an optimal interpolation."""


class ReferenceSpec(Strict):
    """A method without settings; ``background`` is the one that others begin from."""

    method: Literal["climatology", "background", "optimal-interpolation"]


SoundingMethodSpec = Annotated[ReferenceSpec | FusionSpec | LatentSpec, Field(discriminator="method")]
Part = Annotated[int, Field(ge=0, lt=PARTS)]


class SoundingSuite(Strict):
    """Withheld stations of one set of ascents.

    Attributes:
        suite: its name.
        prior: a model, by name or directory.
        folds: the parts, of ten, that are withheld in turn.
        background_parts: how many of the others, those that follow, make the background.
        window_hours: half-width about the analysis time, the most frequent one.
        amplitude: of the mapping between climates.
        representativeness: part of the observation error, in units of the climatological std.
        seed: of the parts and the members.
        members: of generative ensembles.
        reference: the row that ratios and significance refer to.
        methods: rows by name.
        quick: other values of these keys for a short run.
    """

    kind: Literal["soundings"]
    suite: SuiteName
    prior: str = "embedded"
    folds: Annotated[tuple[Part, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    background_parts: int = Field(default=3, ge=1, le=PARTS - 2)
    window_hours: float = Field(default=3.0, gt=0)
    amplitude: float = Field(default=1.0, gt=0)
    representativeness: float = Field(default=0.3, ge=0)
    seed: int = Field(default=0, ge=0)
    members: int = Field(default=16, ge=2)
    reference: str
    methods: Mapping[str, SoundingMethodSpec]
    quick: Mapping[str, Any] = {}


@dataclass(frozen=True)
class SoundingExperiment:
    """The experiment of a sounding suite.

    Attributes:
        suite: what to do.
        data: a file of ascents; the shipped ones, simulated at the sites of a real network, where None.
    """

    suite: SoundingSuite
    data: Path | None = None

    @property
    def model(self) -> Model:
        return model_of(self.suite.prior)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        return tuple(c.id for c in parse_channels(self.model.channels) if c.pressure is not None)

    @property
    def std(self) -> Array | None:
        return None

    @property
    def scenarios(self) -> tuple[str, ...]:
        return ("",)

    @property
    def cases(self) -> tuple[str, ...]:
        suite = self.suite
        check_base(suite.prior, suite.methods, INTERPOLATED)
        for name, spec in suite.methods.items():
            if isinstance(spec, LatentSpec):
                lead = latent_model_of(spec.model).lead_or_first(None)
                check_latent(self.model, name, spec, lead, suite.members, np.empty(0, "datetime64[ns]"))
        return tuple(map(str, suite.folds))

    def applies(self, spec: SoundingMethodSpec, scenario: str) -> bool:
        return True

    def decides(self, spec: SoundingMethodSpec, scenario: str) -> list[object]:
        """Everything but the case that the numbers of a method depend on."""
        experiment = self.suite.model_dump(mode="json", exclude={"methods", "reference", "folds", "quick"})
        weights = [check_model(self.suite.prior).sha256]
        chosen: object = spec.model_dump(mode="json")
        if isinstance(spec, LatentSpec):
            weights += weights_of(spec)
            chosen = resolved(spec, self.suite.members)
        where = None if self.data is None else str(self.data.absolute())
        return [experiment, where, weights, chosen]

    def run(self, spec: SoundingMethodSpec, scenario: str, case: str) -> Statistics:
        """Assimilate all stations but a part, and score what that part observed.

        Raises:
            FloatingPointError: for an analysis that is not finite.
        """
        parted, members = self.analyse(spec, case)
        if not bool(torch.isfinite(members).all()):
            raise FloatingPointError("the analysis is not finite")
        withheld = parted.withheld
        seen = observe(self.model, members, withheld).numpy()
        judged = withheld.assign(hx_a=parted.mapping.to_earth(withheld, seen.mean(axis=0), parted.climatology))
        if len(seen) > 1:
            judged["hx_spread"] = self.suite.amplitude * seen.std(axis=0, ddof=1)
        return station_statistics(judged, channels=self.channels)

    def analyse(self, spec: SoundingMethodSpec, case: str) -> tuple[Parted, torch.Tensor]:
        """The observations of a case, and members in the model's climate, (member, channel, lat, lon), physical units."""
        suite, model = self.suite, self.model
        parted = _parted(
            self.data, suite.prior, suite.seed, int(case), suite.background_parts, suite.window_hours,
            suite.amplitude, suite.representativeness,
        )  # fmt: skip
        if isinstance(spec, FusionSpec):
            sources = self._sources(parted.used, parted.time)
            return parted, self._members(model, fusion_method(spec, model, sources), sources, parted.time, spec.members)
        if spec.method == "climatology":
            return parted, climatology(model, parted.time).unsqueeze(0)
        interpolation = make_method("optimal-interpolation", model)
        first = parted.used if spec.method == "optimal-interpolation" else parted.first
        interpolated = self._members(model, interpolation, self._sources(first, parted.time), parted.time)
        if isinstance(spec, ReferenceSpec):
            return parted, interpolated
        latent = latent_model_of(spec.model)
        method, sources = latent_method(spec, latent.lead_or_first(None)), self._sources(parted.second, parted.time)
        background = State(interpolated.unsqueeze(0), model.channels, model.grid, np.array([parted.time]))
        return parted, self._members(latent, method, sources, parted.time, spec.members, background)

    def _members(
        self,
        model: Model | LatentModel,
        method: Method,
        sources: Sequence[Source],
        time: np.datetime64,
        members: int | None = None,
        background: State | None = None,
    ) -> torch.Tensor:
        count, seed = members or self.suite.members, self.suite.seed
        return library.assimilate(model, sources, time, method, count, seed, background=background).members.values[0]

    def _sources(self, table: pd.DataFrame, time: np.datetime64) -> list[Source]:
        return [
            point_source(self.model, add_representativeness(self.model, table, self.suite.representativeness), time)
        ]


@dataclass(frozen=True)
class Parted:
    """The observations of one fold.

    Attributes:
        used: what is assimilated, in the model's climate.
        first, second: those of the parts that make the background, and the rest of ``used``.
        withheld: as observed, the errors with their representativeness.
        climatology: H of the model's, at what is withheld.
        mapping: of climates, fitted to ``used``.
        time: of the analysis.
    """

    used: pd.DataFrame
    first: pd.DataFrame
    second: pd.DataFrame
    withheld: pd.DataFrame
    climatology: Array
    mapping: ClimateMapping
    time: np.datetime64


@lru_cache(maxsize=2)
def _parted(
    data: Path | None, prior: str, seed: int, part: int, first: int, window: float, amplitude: float, fraction: float
) -> Parted:
    model, raw = model_of(prior), read_observations(data or DEMO_OBSERVATIONS)
    time = np.datetime64(raw["time"].mode()[0].round("6h"), "ns")
    order = np.random.default_rng(seed).permutation(raw["station"].unique())
    held = raw["station"].isin(set(order[part::PARTS]))
    table, mapping = usable_observations(model, raw[~held], time, window, map_climate=True, amplitude=amplitude)
    used = table[table["quality"] == Flag.PASS].reset_index(drop=True)
    if used.empty or mapping is None:
        raise ValueError(
            f"{data or DEMO_OBSERVATIONS}: found no ascent to use at {time}, expected some at the model's levels"
        )
    unit = replace(mapping, amplitude=1.0)  # the same values are withheld whatever the amplitude
    judged, _ = usable_observations(model, raw[held], time, window, mapping=unit)
    withheld = as_reported(judged[judged["quality"] == Flag.PASS]).reset_index(drop=True)
    mean = observe(model, climatology(model, time), withheld).numpy()
    withheld = add_representativeness(model, withheld, fraction * amplitude)
    parts = [set(order[(part + 1 + k) % PARTS :: PARTS]) for k in range(first)]
    early = used["station"].isin(set().union(*parts))
    first_used, second_used = (used[rows].reset_index(drop=True) for rows in (early, ~early))
    return Parted(used, first_used, second_used, withheld, mean, mapping, time)
