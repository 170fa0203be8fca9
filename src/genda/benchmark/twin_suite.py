"""What a suite of twin experiments on the sphere may say: archive dates, networks, and the settings of each method."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field

from genda.benchmark.generative import FusionSpec
from genda.benchmark.latent import LatentSpec
from genda.documents import Strict

Error = Annotated[float, Field(ge=1e-6, le=1e3)]
"""Standard deviation of observations; far above 0, which would make R singular, and finite."""
Noise = Annotated[float, Field(ge=0, le=1e3)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
EXACT = 0.01
"""Error assumed of observations without noise, in units of each channel's std: it keeps the linear algebra well conditioned."""


class ColumnsSpec(Strict):
    """Columns of all channels at random grid points, drawn anew for every date.

    Attributes:
        density: share of the grid points.
        noise: standard deviation of the errors added, in units of each channel's std.
        error: standard deviation the methods are told; the noise, or 0.01 where there is none.
    """

    kind: Literal["columns"]
    density: float = Field(gt=0, le=1)
    noise: Noise = 0.0
    error: Error | None = None


class StationsSpec(Strict):
    """Columns of all channels at the sites of the real radiosonde network; ``noise`` and ``error`` as in ColumnsSpec."""

    kind: Literal["stations"]
    noise: Noise = 0.0
    error: Error | None = None


class FieldSpec(Strict):
    """Area means over blocks of ``factor`` × ``factor`` cells, taken as exact to within ``error`` of each channel's std."""

    kind: Literal["field"]
    factor: int = Field(ge=2)
    error: Error = 0.02


class QuantitySpec(Strict):
    """A quantity of columns at random grid points that is no linear function of the state, with errors added.

    Attributes:
        kind: of :data:`genda.observations.quantities.QUANTITIES`.
        density: share of the grid points.
        error: standard deviation in the quantity's own unit; its usual one where None.
    """

    kind: Literal["wind-speed", "log-humidity", "transmittance"]
    density: float = Field(gt=0, le=1)
    error: Error | None = None


Network = Annotated[ColumnsSpec | StationsSpec | FieldSpec | QuantitySpec, Field(discriminator="kind")]


class PlainSpec(Strict):
    """A method without settings.

    ``background`` is the raw one; ``unbiased`` has its mean error removed; ``ensemble`` is the ensemble about that. ``only`` names
    the scenarios it takes part in.
    """

    method: Literal["background", "unbiased", "ensemble", "climatology", "bicubic", "optimal-interpolation"]
    only: tuple[str, ...] = ()


class StaticCovarianceSpec(Strict):
    """A background covariance fitted to training backgrounds.

    Attributes:
        form: ``zonal``: homogeneous along latitude circles, free in everything else; ``isotropic``: the operational form,
            standard deviations by latitude and correlations homogeneous on the sphere.
        sample: ``errors`` of training backgrounds; ``leads``: those of the other lead too, scaled to the same variance;
            ``nmc``: differences of the two leads.
        radius: of the taper, m.
        shrinkage: share of the isotropic form in a zonal one, which has fewer numbers to estimate and less noise in them.
        scale: factor on B.
    """

    form: Literal["zonal", "isotropic"] = "zonal"
    sample: Literal["errors", "leads", "nmc"] = "errors"
    radius: Length = 5.0e6
    shrinkage: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class VariationalSpec(Strict):
    """3D-Var."""

    method: Literal["3d-var"]
    covariance: StaticCovarianceSpec = StaticCovarianceSpec()


class LetkfSpec(Strict):
    """LETKF from the background's ensemble; ``prior_inflation`` multiplies the background's deviations."""

    method: Literal["letkf"]
    radius: Length = 3.0e6
    prior_inflation: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class EnvarSpec(Strict):
    """Hybrid EnVar: ``static_weight`` B + ``ensemble_weight`` times the localised ensemble covariance."""

    method: Literal["hybrid"]
    radius: Length = 4.0e6
    static_weight: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    ensemble_weight: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    covariance: StaticCovarianceSpec = StaticCovarianceSpec()


TwinMethodSpec = Annotated[
    PlainSpec | VariationalSpec | LetkfSpec | EnvarSpec | FusionSpec | LatentSpec, Field(discriminator="method")
]


SuiteName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


class TwinSuite(Strict):
    """Twin experiments: truth of a nature run, its backgrounds, observations simulated from the truth.

    Attributes:
        suite: its name.
        prior: a model, by name or directory: channels, grid, units, and the prior of the generative rows.
        lead: of the background as played, h.
        split: of the nature run.
        dates: evenly spread over it.
        pairs: training backgrounds that B and the mean error are fitted to, evenly chosen.
        seed: of networks, noise and members.
        members: of generative ensembles.
        scenarios: networks by the name of the scenario.
        reference: the row that ratios and significance refer to.
        methods: rows by name.
        ensembles: take dates that have an ensemble, whichever rows are run.
        forecast_hours: run the truth's model so long from its state changed by each analysis's mean, and score that too.
        quick: other values of these keys for a short run.
    """

    kind: Literal["twin"]
    suite: SuiteName
    prior: str = "embedded"
    lead: int = Field(default=24, gt=0)
    split: Literal["validation", "test"] = "test"
    dates: int = Field(default=72, ge=1)
    pairs: int = Field(default=500, ge=2)
    seed: int = Field(default=0, ge=0)
    members: int = Field(default=16, ge=2)
    scenarios: Mapping[str, Annotated[tuple[Network, ...], Field(min_length=1)]] = Field(min_length=1)
    reference: str
    methods: Mapping[str, TwinMethodSpec]
    ensembles: bool = False
    forecast_hours: Annotated[int, Field(gt=0, multiple_of=24)] | None = None
    quick: Mapping[str, Any] = {}

    @property
    def takes_ensembles(self) -> bool:
        return any(takes_ensemble(spec) for spec in self.methods.values())


class FreeRunSpec(Strict):
    """The model left alone."""

    method: Literal["free-run"]


CycledMethodSpec = Annotated[
    FreeRunSpec | VariationalSpec | LetkfSpec | EnvarSpec | LatentSpec, Field(discriminator="method")
]


class CycledSuite(Strict):
    """Cycles of the general circulation model: an analysis every day, each from the forecast of the one before.

    A row's members are its own forecasts: one for the free run and 3D-Var, those of the suite for LETKF and hybrid, its own or
    those of the suite for a latent method. Each has an imperfect model of its own, drawn once a cycle.

    Attributes:
        suite, prior, split, pairs, seed, members, scenarios, reference, methods, quick: as in :class:`TwinSuite`.
        lead: of the backgrounds whose errors covariances and priors are made of, h; forecasts are of 24 h.
        starts: dates of the first forecasts, one cycle each; the first analysis is a day later.
        turns: analyses of a cycle.
        spin_up: turns left out of the scores.
    """

    kind: Literal["cycled"]
    suite: SuiteName
    prior: str = "embedded"
    lead: int = Field(default=24, gt=0)
    split: Literal["validation", "test"] = "test"
    starts: Annotated[tuple[date, ...], Field(min_length=1)]
    turns: int = Field(default=40, ge=2)
    spin_up: int = Field(default=10, ge=0)
    pairs: int = Field(default=300, ge=2)
    seed: int = Field(default=0, ge=0)
    members: int = Field(default=16, ge=2)
    scenarios: Mapping[str, Annotated[tuple[Network, ...], Field(min_length=1)]] = Field(min_length=1)
    reference: str
    methods: Mapping[str, CycledMethodSpec]
    quick: Mapping[str, Any] = {}


def takes_ensemble(spec: TwinMethodSpec) -> bool:
    """Whether a row needs an ensemble about the background."""
    if isinstance(spec, LatentSpec):
        return spec.ensemble is not None
    return isinstance(spec, LetkfSpec | EnvarSpec) or (isinstance(spec, PlainSpec) and spec.method == "ensemble")


def takes_part(spec: TwinMethodSpec | CycledMethodSpec, scenario: str) -> bool:
    """Whether a row is for a scenario."""
    only = spec.only if isinstance(spec, PlainSpec | FusionSpec | LatentSpec) else ()
    return not only or scenario in only
