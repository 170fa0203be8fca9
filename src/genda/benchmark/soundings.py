"""Real ascents: some stations assimilated, the others withheld to judge by.

Disjoint parts of the stations are withheld in turn; checks, errors and the mapping between climates see the rest alone, and are the
same for every method. Errors at withheld stations include those of their observations.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from genda.benchmark.twin_suite import SuiteName
from genda.checkpoint import Model, Strict, check_model
from genda.observations.climate import ClimateMapping
from genda.observations.read import read_observations
from genda.sources import add_representativeness, climatology, observe, point_source
from genda.state_methods import make_method
from genda.usable import usable_observations
from genda.variables import channels as parse_channels
from genda.verify import Statistics, station_statistics
from genda.verify.scores import Array

PARTS = 10
"""Into which the stations are dealt; one is withheld at a time."""


class ReferenceSpec(Strict):
    """A method without settings."""

    method: Literal["climatology", "optimal-interpolation"]


SoundingMethodSpec = Annotated[ReferenceSpec | FusionSpec, Field(discriminator="method")]


class SoundingSuite(Strict):
    """Withheld stations of one set of ascents.

    Attributes:
        suite: its name.
        prior: a model, by name or directory.
        folds: how many of the ten parts are withheld in turn.
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
    folds: int = Field(default=5, ge=1, le=PARTS)
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
        check_base(self.suite.prior, self.suite.methods)
        return tuple(str(fold) for fold in range(self.suite.folds))

    def applies(self, spec: SoundingMethodSpec, scenario: str) -> bool:
        return True

    def decides(self, spec: SoundingMethodSpec, scenario: str) -> list[object]:
        """Everything but the case that the numbers of a method depend on."""
        experiment = self.suite.model_dump(mode="json", exclude={"methods", "reference", "folds", "quick"})
        weights = check_model(self.suite.prior).sha256
        where = None if self.data is None else str(self.data.absolute())
        return [experiment, where, weights, spec.model_dump(mode="json")]

    def run(self, spec: SoundingMethodSpec, scenario: str, case: str) -> Statistics:
        """Assimilate all stations but a part, and score what that part observed.

        Raises:
            FloatingPointError: for an analysis that is not finite.
        """
        suite, model = self.suite, self.model
        used, withheld, mapping, time = _parted(
            self.data, suite.prior, suite.seed, int(case), suite.window_hours, suite.amplitude
        )
        mean = climatology(model, time)
        expected = observe(model, mean, withheld).numpy()
        sources = [point_source(model, add_representativeness(model, used, suite.representativeness), time)]
        state = mean
        if not (isinstance(spec, ReferenceSpec) and spec.method == "climatology"):
            method = (
                make_method("optimal-interpolation", model)
                if isinstance(spec, ReferenceSpec)
                else fusion_method(spec, model, sources)
            )
            members = spec.members or suite.members if isinstance(spec, FusionSpec) else 1
            drawn = library.assimilate(model, sources, time, method, members, suite.seed)
            state = drawn.members.values[0].mean(dim=0)
            if not bool(torch.isfinite(state).all()):
                raise FloatingPointError("the analysis is not finite")
        values = observe(model, state, withheld).numpy()
        if mapping is not None:
            values = mapping.to_earth(withheld, values, expected)
        return station_statistics(withheld.assign(hx_a=values), channels=self.channels)


Parted = tuple[pd.DataFrame, pd.DataFrame, ClimateMapping | None, np.datetime64]


@lru_cache(maxsize=2)
def _parted(data: Path | None, prior: str, seed: int, part: int, window: float, amplitude: float) -> Parted:
    """What is assimilated, what is withheld as observed, the mapping of climates, and the time."""
    model, raw = model_of(prior), read_observations(data or DEMO_OBSERVATIONS)
    time = np.datetime64(raw["time"].mode()[0].round("6h"), "ns")
    order = np.random.default_rng(seed).permutation(raw["station"].unique())
    held = raw["station"].isin(set(order[part::PARTS]))
    table, mapping = usable_observations(model, raw[~held], time, window, map_climate=True, amplitude=amplitude)
    used = table[table["quality"] == 0].reset_index(drop=True)
    if used.empty or mapping is None:
        raise ValueError(
            f"{data or DEMO_OBSERVATIONS}: found no ascent to use at {time}, expected some at the model's levels"
        )
    unit = replace(mapping, amplitude=1.0)  # the same values are withheld whatever the amplitude
    judged, _ = usable_observations(model, raw[held], time, window, mapping=unit)
    withheld = judged[judged["quality"] == 0].reset_index(drop=True)
    mean = observe(model, climatology(model, time), withheld).numpy()
    withheld["observation"] = unit.to_earth(withheld, withheld["observation"].to_numpy(), mean)
    return used, withheld, mapping, time
