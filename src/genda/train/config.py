"""Configuration of a training run: a YAML file checked key by key, and ``dotted.key=value`` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from genda.checkpoint import Architecture
from genda.diffusion.loss import VALIDATION_SIGMAS
from genda.documents import Strict, first_complaint, read_yaml
from genda.latent_card import AutoencoderSpec, IncrementArchitecture
from genda.variables import chosen_channels


class DataConfig(Strict):
    """Where the training states come from.

    ``channels`` are embedded, era5 or identifiers, as a list or separated by commas. ``train`` and ``validation`` are values of the
    coordinate ``split`` or [first, last] dates. ``normalisation`` is a model whose climatology is taken over, so that both see
    states in the same units; without it, one is fitted.
    """

    path: Path = Path("nature.zarr")
    channels: str | tuple[str, ...] = "embedded"
    train: str | tuple[str, str] = "train"
    validation: str | tuple[str, str] = "validation"
    harmonics: int = Field(default=2, ge=0)
    fit_samples: Annotated[int, Field(ge=2)] | None = None
    storage: Literal["float32", "float16", "disk"] = "float32"
    normalisation: str | None = None

    @field_validator("channels")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        chosen_channels(value if isinstance(value, str) else ",".join(value))
        return value

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _dates_as_text(cls, value: object) -> object:
        """YAML reads 2020-01-01 as a date."""
        return [str(v) for v in value] if isinstance(value, (list, tuple)) else value

    @property
    def names(self) -> tuple[str, ...]:
        return chosen_channels(self.channels) if isinstance(self.channels, str) else self.channels


class OptimiserConfig(Strict):
    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_images: int = Field(default=2000, ge=0)
    decay: float = Field(default=1.0, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.05, gt=0, lt=0.28)


class NoiseConfig(Strict):
    p_mean: float = -0.5
    p_std: float = Field(default=1.5, gt=0)


class ValidationConfig(Strict):
    every_images: int = Field(default=5000, ge=1)
    samples: int = Field(default=32, ge=1)
    sigmas: tuple[float, ...] = VALIDATION_SIGMAS


class TrainConfig(Strict):
    """What every run has; each key may be overridden as ``section.key=value``.

    ``readers`` is how many batches are made ahead of the network, each on a thread of its own.
    """

    out: Path = Path("runs/embedded")
    seed: int = Field(default=0, ge=0)
    data: DataConfig = DataConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    validation: ValidationConfig = ValidationConfig()
    batch: int = Field(default=32, ge=1)
    max_images: int = Field(default=100_000, ge=1)
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    checkpoint_minutes: float = Field(default=10.0, ge=0)
    log_steps: int = Field(default=20, ge=1)
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    readers: int = Field(default=2, ge=1)
    bfloat16: bool = False
    compile: bool = False


class PriorConfig(TrainConfig):
    """A prior of states."""

    kind: Literal["prior"] = "prior"
    architecture: Architecture = Architecture()
    noise: NoiseConfig = NoiseConfig()


class AutoencoderConfig(TrainConfig):
    """An autoencoder of states.

    Attributes:
        divergence: beta, the weight of the KL divergence from the standard normal.
        weights: of channels in the loss: ``errors`` divides by the mean squared error of the data set's training backgrounds,
            so that what a latent loses is told in units of what an analysis can gain; ``equal`` takes them as normalised.
    """

    kind: Literal["autoencoder"]
    autoencoder: AutoencoderSpec = AutoencoderSpec()
    divergence: float = Field(default=1e-5, ge=0)
    weights: Literal["errors", "equal"] = "errors"


class BaseFit(Strict):
    """The zonal Gaussian that a network of increments corrects: its modes, and the radius in m of the taper it is fitted with."""

    modes: int = Field(default=3000, ge=1)
    radius: float = Field(default=1.4e7, gt=0)


class ObservationConfig(Strict):
    """Observations simulated in training for a network that is shown them.

    Attributes:
        density: least and largest share of the columns that are observed; drawn log-uniformly.
        noise: standard deviation of the noise in units of each channel's, of those samples that have any.
        noisy: share of samples with noise.
        hidden: share of samples whose observations are not shown.
    """

    density: tuple[float, float] = (0.005, 0.1)
    noise: float = Field(default=0.1, ge=0)
    noisy: float = Field(default=0.5, ge=0, le=1)
    hidden: float = Field(default=0.15, ge=0, le=1)

    @field_validator("density")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"found {value[0]:g} to {value[1]:g}, expected rising shares in (0, 1]")
        return value


class PhysicsConfig(Strict):
    """The physics term of the loss, see :mod:`genda.train.physics`.

    Attributes:
        residual: of :mod:`genda.physics.residuals`: tendencies, two times, or balances.
        weight: c, the factor of the term.
        schedule: how it depends on the noise level.
        level: below which a reciprocal weight grows no more, or from which on a step is zero.
        every: n, where it is taken of every n-th sample of a batch. What is a batch in one process is the same for several whose
            slices n divides.
        latitude, interior: where equations are asked to hold, see :class:`genda.physics.enforcement.Enforcement`.
        meridional, filter_order, polar_cap: how derivatives are taken, see :class:`genda.physics.derivatives.Differentiation`.
        closure, condensation: of the equations, see :class:`genda.physics.primitive_equations.PrimitiveEquations`.
    """

    residual: Literal["tendencies", "two-times", "balances"] = "tendencies"
    weight: float = Field(default=0.2, ge=0)
    schedule: Literal["reciprocal", "step", "constant"] = "reciprocal"
    level: float = Field(default=0.2, gt=0)
    every: int = Field(default=1, ge=1)
    latitude: float = Field(default=85.0, gt=0, le=90)
    interior: bool = True
    meridional: Literal["harmonics", "differences"] | None = None
    filter_order: int | None = Field(default=16, ge=2)
    polar_cap: bool = True
    closure: Literal["free", "rigid"] = "rigid"
    condensation: bool = False


class IncrementConfig(TrainConfig):
    """A prior of background errors in an autoencoder's latent space.

    Attributes:
        autoencoder: a shipped model's name or a directory; without one the errors of the states themselves are diffused.
        initial: a shipped model's name or a directory whose network training begins with, of the same architecture and latent.
            Without one the network begins at random.
        base: None takes the Gaussian that the initial network corrects, with the scales of increments that it knows; where it is
            given, or there is no initial network, all are fitted.
        damped: count increments from what a background alone tells of its error, see :mod:`genda.diffusion.damping`.
        context_dropout: share of samples whose network is not shown the background.
        observations: simulated for a network with an encoder of them (``architecture.observations``).
        physics: the equations as part of the loss; None leaves them out.
    """

    kind: Literal["increments"]
    autoencoder: str | None = None
    initial: str | None = None
    architecture: IncrementArchitecture
    base: BaseFit | None = None
    noise: NoiseConfig = NoiseConfig(p_mean=0.0, p_std=1.3)
    damped: bool = False
    context_dropout: float = Field(default=0.1, ge=0, le=1)
    observations: ObservationConfig = ObservationConfig()
    physics: PhysicsConfig | None = None


KINDS: Mapping[str, type[TrainConfig]] = {
    "prior": PriorConfig,
    "autoencoder": AutoencoderConfig,
    "increments": IncrementConfig,
}

MAY_CHANGE = frozenset(
    "data out max_images max_minutes checkpoint_minutes log_steps validation device threads readers compile".split()
)
"""Keys that a resumed run may change (``data`` may have grown); the others decide what the weights mean."""


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``dotted.key=value`` overrides (values in YAML).

    Raises:
        FileNotFoundError: where there is no file.
        ValueError: naming file and key, what was found and what was expected.
    """
    path = Path(path)
    document = read_yaml(path) or {}
    if not isinstance(document, dict):
        raise ValueError(f"{path}: found {type(document).__name__}, expected keys and values")
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            raise ValueError(f"{override!r}: expected key=value, for example optimiser.lr=1e-3")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"{override!r}: expected a YAML value after '='") from error
        *parents, leaf = key.split(".")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{override!r}: {parent} holds a value, expected a section")
        node[leaf] = value
    kind = document.get("kind", "prior")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{path}: kind: found {kind!r}, expected one of {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(document)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_complaint(error)}") from error
