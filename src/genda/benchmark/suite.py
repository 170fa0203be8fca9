"""What a benchmark suite may say: a YAML file, checked key by key before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from genda.assets import DIRECTORY
from genda.benchmark.generative import FusionSpec
from genda.benchmark.latent import LatentSpec
from genda.benchmark.soundings import SoundingSuite
from genda.benchmark.twin_suite import (
    CycledSuite,
    Error,
    FieldSpec,
    Length,
    PlainSpec,
    SuiteName,
    TwinSuite,
    takes_part,
)
from genda.documents import Strict, first_complaint, read_yaml

SUITES = DIRECTORY / "suites"


class ToyModelSpec(Strict):
    """A toy model; ``settings`` are the arguments of its class."""

    name: Literal["lorenz63", "lorenz96", "quasi-geostrophic"]
    settings: Mapping[str, int | float] = {}


_ENSEMBLE = {"members", "inflation", "window"}
_SETTINGS: Mapping[str, set[str]] = {
    "climatology": set(),
    "persistence": {"window"},
    "optimal-interpolation": {"covariance", "outer", "inner"},
    "3d-var": {"covariance", "outer", "inner"},
    "4d-var": {"covariance", "outer", "inner", "window"},
    "enkf": _ENSEMBLE,
    "etkf": _ENSEMBLE | {"rotate"},
    "letkf": {"members", "inflation", "rotate", "radius"},
    "particle-filter": {"members", "jitter", "window"},
}
"""What each method of a toy suite reads."""


class ToyMethodSpec(Strict):
    """One row of a toy suite.

    Attributes:
        method: what it is.
        members: of the ensemble it cycles; 1 for a single state.
        covariance: for 3d-var and 4d-var, B in units of the climatological covariance.
        window: intervals from the state that is analysed to the newest observations, as in :func:`genda.cycle.cycle`.
        outer, inner: as in the variational method's class.
        inflation, rotate, radius, jitter: as in the method's class.
    """

    method: Literal[
        "climatology",
        "persistence",
        "optimal-interpolation",
        "3d-var",
        "4d-var",
        "enkf",
        "etkf",
        "letkf",
        "particle-filter",
    ]
    members: int = Field(default=1, ge=1)
    covariance: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    window: int = Field(default=0, ge=0)
    outer: int = Field(default=1, ge=1)
    inner: int = Field(default=200, ge=1)
    inflation: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    rotate: bool = False
    radius: Length = 10.0
    jitter: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _settings_are_read(self) -> ToyMethodSpec:
        unread = sorted(self.model_fields_set - {"method"} - _SETTINGS[self.method])
        if unread:
            names = {
                "key": unread[0],
                "method": self.method,
                "expected": ", ".join(sorted(_SETTINGS[self.method])) or "none",
            }
            raise PydanticCustomError(
                "unknown_key", "{key}: unknown key for {method}, expected some of {expected}", names
            )
        return self

    @model_validator(mode="after")
    def _window_fits(self) -> ToyMethodSpec:
        if self.method == "4d-var" and not self.window:
            raise ValueError("found no window, expected at least 1 interval for 4d-var")
        return self


class ToySuite(Strict):
    """A twin experiment with a toy model, cycled.

    Attributes:
        suite: its name, also that of a folder.
        model: truth and forecasts.
        interval: between analyses, the model's time.
        every: every how many-th variable is observed.
        error: standard deviation of the observations.
        start_error: of the first members about the truth.
        turns: analyses of one case.
        burn_in: turns left out of the scores.
        block: turns whose mean is one sample, long against the memory of an error.
        seeds: one case each.
        reference: the row that ratios and significance refer to.
        methods: rows by name.
        quick: other values of these keys for a short run.
    """

    kind: Literal["toy"]
    suite: SuiteName
    model: ToyModelSpec
    interval: float = Field(gt=0, allow_inf_nan=False)
    every: int = Field(default=1, ge=1)
    error: Error
    start_error: Error
    turns: int = Field(ge=2)
    burn_in: int = Field(ge=0)
    block: int = Field(default=50, ge=1)
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    reference: str
    methods: Mapping[str, ToyMethodSpec]
    quick: Mapping[str, Any] = {}


Suite = ToySuite | TwinSuite | SoundingSuite | CycledSuite
KINDS: Mapping[str, type[Suite]] = {
    "toy": ToySuite,
    "twin": TwinSuite,
    "soundings": SoundingSuite,
    "cycled": CycledSuite,
}


def shipped_suites() -> tuple[str, ...]:
    """Names of the suites that come with the package."""
    return tuple(sorted(path.stem for path in SUITES.glob("*.yaml")))


def read_suite(
    name: str | Path,
    *,
    quick: bool = False,
    methods: Sequence[str] = (),
    scenarios: Sequence[str] = (),
    dates: int | None = None,
    reference: str | None = None,
) -> Suite:
    """A shipped suite by its name, or the one of a YAML file.

    Args:
        name: of a shipped suite, or a path.
        quick: take the short form.
        methods: keep these rows only (and the reference); none or "all" keeps all.
        scenarios: keep these only, of a twin suite; none keeps all.
        dates: so many instead of the suite's own, of a twin suite.
        reference: the row that ratios and significance refer to, instead of the suite's own.

    Raises:
        ValueError: one line naming the unknown suite, or the file and the key that is wrong, or the unknown row.
    """
    path = SUITES / f"{name}.yaml" if str(name) in shipped_suites() else Path(name)
    if not path.is_file():
        raise ValueError(
            f"suite {str(name)!r}: found neither a shipped suite ({', '.join(shipped_suites())}) nor a file"
        )
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ValueError(f"{path}: found {type(document).__name__}, expected keys and values")
    if quick and isinstance(document.get("quick"), dict):
        document = {**document, **document["quick"]}
    if dates is not None:
        document = {**document, "dates": dates}
    if reference is not None:
        document = {**document, "reference": reference}
    kind = str(document.get("kind", ""))
    if kind not in KINDS:
        raise ValueError(f"{path}: kind: found {kind!r}, expected one of {', '.join(KINDS)}")
    try:
        suite = KINDS[kind].model_validate(document)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_complaint(error)}") from None
    suite = _checked(suite, path)
    if quick and not suite.quick:
        raise ValueError(f"{path}: found no key quick, expected one with the values of the short form")
    if isinstance(suite, TwinSuite) and suite.takes_ensembles:  # fewer rows are run on the same dates
        suite = suite.model_copy(update={"ensembles": True})
    if methods and "all" not in methods:
        suite = _keep(suite, "methods", [suite.reference, *methods], path)
    return _keep(suite, "scenarios", scenarios, path) if scenarios else suite


def _keep(suite: Suite, key: str, names: Sequence[str], path: Path) -> Suite:
    """The suite with these of its methods or scenarios."""
    known: Mapping[str, Any] = getattr(suite, key, {})
    unknown = [name for name in names if name not in known]
    if unknown:
        expected = f"some of {', '.join(known)}" if known else "none, the suite has none"
        raise ValueError(f"{path}: {key}: found no {', '.join(unknown)}, expected {expected}")
    return suite.model_copy(update={key: {name: spec for name, spec in known.items() if name in names}})


def _checked(suite: Suite, path: Path) -> Suite:
    for name in suite.methods:
        if "," in name:
            raise ValueError(f"{path}: methods: found a comma in {name!r}, expected none: commas separate names")
    if suite.reference not in suite.methods:
        raise ValueError(f"{path}: reference: found {suite.reference!r}, expected one of {', '.join(suite.methods)}")
    if isinstance(suite, ToySuite):
        _check_toy(suite, path)
    if isinstance(suite, TwinSuite):
        _check_twin(suite, path)
    if isinstance(suite, CycledSuite):
        _check_cycled(suite, path)
    if isinstance(suite, SoundingSuite):
        _check_soundings(suite, path)
    return suite


def _check_soundings(suite: SoundingSuite, path: Path) -> None:
    if len(set(suite.folds)) < len(suite.folds):
        raise ValueError(f"{path}: folds: found {', '.join(map(str, suite.folds))}, expected each once")
    for name, spec in suite.methods.items():
        if isinstance(spec, FusionSpec) and (spec.background or spec.only):
            raise ValueError(f"{path}: methods.{name}: found background or only, expected neither for soundings")
        if isinstance(spec, LatentSpec) and (spec.only or spec.ensemble or spec.method == "latent-floor"):
            raise ValueError(
                f"{path}: methods.{name}: found only, ensemble or latent-floor, expected none of them for soundings"
            )


def _check_toy(suite: ToySuite, path: Path) -> None:
    if suite.turns - suite.burn_in < suite.block:
        found = f"{suite.turns} turns less {suite.burn_in}"
        raise ValueError(f"{path}: turns: found {found}, expected at least one block of {suite.block}")
    if len(set(suite.seeds)) < len(suite.seeds):
        raise ValueError(f"{path}: seeds: found {', '.join(map(str, suite.seeds))}, expected each once")
    for name, spec in suite.methods.items():
        if spec.method in ("enkf", "etkf", "letkf", "particle-filter") and spec.members < 2:
            raise ValueError(f"{path}: methods.{name}: found 1 member, expected at least 2 for {spec.method}")


def _check_cycled(suite: CycledSuite, path: Path) -> None:
    if suite.spin_up >= suite.turns:
        raise ValueError(f"{path}: spin_up: found {suite.spin_up}, expected fewer than the {suite.turns} turns")
    if len(set(suite.starts)) < len(suite.starts):
        raise ValueError(f"{path}: starts: found {', '.join(map(str, suite.starts))}, expected each once")
    _check_scenarios(suite, path)
    for name, spec in suite.methods.items():
        if isinstance(spec, LatentSpec) and spec.method in ("latent-floor", "latent-prior"):
            raise ValueError(f"{path}: methods.{name}: found {spec.method}, expected a method that assimilates")


def _check_scenarios(suite: TwinSuite | CycledSuite, path: Path) -> None:
    """Refuse a row that takes part nowhere, and a reference that does not take part everywhere."""
    for name, spec in suite.methods.items():
        scenarios = [scenario for scenario in suite.scenarios if takes_part(spec, scenario)]
        if not scenarios:
            raise ValueError(f"{path}: methods.{name}.only: found none of the scenarios {', '.join(suite.scenarios)}")
        if name == suite.reference and len(scenarios) < len(suite.scenarios):
            raise ValueError(
                f"{path}: methods.{name}.only: found {', '.join(scenarios)}, expected all for the reference"
            )


def _check_twin(suite: TwinSuite, path: Path) -> None:
    _check_scenarios(suite, path)
    for name, spec in suite.methods.items():
        if isinstance(spec, PlainSpec) and spec.method == "bicubic":
            for scenario in suite.scenarios:
                fields = any(isinstance(network, FieldSpec) for network in suite.scenarios[scenario])
                if takes_part(spec, scenario) and not fields:
                    raise ValueError(
                        f"{path}: methods.{name}: found no field in {scenario}, expected one to interpolate"
                    )
