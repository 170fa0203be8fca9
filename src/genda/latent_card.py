"""Cards of latent models: what is in ``model.json`` of an autoencoder and of a prior of background errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from genda.assets import model_directory
from genda.checkpoint import CARD, GridCard, UNetConfig, read_document
from genda.documents import Strict

AUTOENCODER = "autoencoder"
"""Folder of a prior's directory that holds its autoencoder."""


class AutoencoderSpec(Strict):
    """Arguments of :class:`genda.nn.autoencoder.Autoencoder` that do not follow from the data."""

    kind: Literal["conv", "transformer", "linear", "identity"] = "conv"
    latent: int = Field(default=48, ge=1)
    patch: int = Field(default=2, ge=1)
    width: int = Field(default=128, ge=1)
    depth: int = Field(default=3, ge=1)
    windows: tuple[tuple[int, int], ...] = ((6, 6), (2, 12), (12, 2), (0, 0))
    head: int = Field(default=32, ge=4)


class DiTConfig(Strict):
    """Arguments of :class:`genda.nn.transformer.DiT` that do not follow from the data."""

    conditioning: Literal["concatenate", "cross", "both"] = "both"
    patch: int = Field(default=2, ge=1)
    width: int = Field(default=256, ge=8)
    depth: int = Field(default=8, ge=1)
    head: int = Field(default=32, ge=4)
    windows: tuple[tuple[int, int], ...] = ((0, 0),)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)


class ObservationSpec(Strict):
    """Arguments of an encoder of :mod:`genda.nn.observation_encoder`; ``scales`` is its depth where it is convolutional.
    With ``none`` the network is given the observations on the grid as they are, and the three sizes are not read.

    ``about`` says what the increments are that are diffused: errors of the background, or of the analysis that the Gaussian
    makes of the same observations.
    """

    about: Literal["background", "analysis"] = "background"
    encoder: Literal["virtual", "convolutional", "none"] = "virtual"
    width: int = Field(default=64, ge=1)
    scales: int = Field(default=3, ge=1)
    head: int = Field(default=32, ge=4)


class IncrementArchitecture(Strict):
    """The network of increments: a UNet or a DiT, with an encoder of observations where it is shown any.

    ``sees_base`` as in :class:`genda.diffusion.increments.IncrementDenoiser`.
    """

    unet: UNetConfig | None = None
    dit: DiTConfig | None = None
    observations: ObservationSpec | None = None
    static: tuple[str, ...] = ()
    sees_base: bool = True

    @model_validator(mode="after")
    def _one_network(self) -> IncrementArchitecture:
        if (self.unet is None) == (self.dit is None):
            raise ValueError(
                f"found {'no network' if self.unet is None else 'unet and dit'}, expected one of unet, dit"
            )
        return self


class AutoencoderCard(Strict):
    """``model.json`` of an autoencoder."""

    format: Literal["genda-autoencoder"] = "genda-autoencoder"
    version: Literal[1] = 1
    channels: tuple[str, ...]
    grid: GridCard
    autoencoder: AutoencoderSpec
    harmonics: int = Field(ge=0)
    sha256: str
    training: dict[str, Any] = Field(default={})


class IncrementCard(Strict):
    """``model.json`` of a prior of increments.

    ``shares`` names a shipped model whose Gaussian and autoencoder this one has, the latter of the digest ``space_sha256``; files
    of its own go before.
    """

    format: Literal["genda-increments"] = "genda-increments"
    version: Literal[1] = 1
    architecture: IncrementArchitecture
    leads: tuple[int, ...] = Field(min_length=1)
    sha256: str
    base_sha256: str
    shares: str | None = None
    space_sha256: str | None = None
    training: dict[str, Any] = Field(default={})


class StateCard(BaseModel):
    """What the cards of all models of states have."""

    channels: tuple[str, ...]
    harmonics: int = Field(ge=0)


class _Format(BaseModel):
    format: str = ""


def is_latent(directory: Path) -> bool:
    """Whether a directory holds a prior of increments.

    Raises:
        ValueError: for an autoencoder, which is no prior.
    """
    found = read_document(directory / CARD, _Format).format
    if found == "genda-autoencoder":
        raise ValueError(f"{directory}: found an autoencoder, expected a prior of states or of background errors")
    return found == "genda-increments"


def part_of(directory: Path, name: str) -> Path:
    """Where a file or folder of a prior is: in its directory, or in that of the model which it shares it with.

    Raises:
        FileNotFoundError, ValueError: where the card is missing or wrong, or names a model that is not there.
    """
    own = directory / name
    if own.exists():
        return own
    shares = read_document(directory / CARD, IncrementCard).shares
    if shares is None:
        return own
    other = model_directory(shares) / name
    if not other.exists():
        raise FileNotFoundError(
            f"{directory / CARD}: shares: found no {name} in {shares}, expected a model that has its own"
        )
    return other


def space_directory(directory: Path) -> Path:
    """That of the autoencoder of a prior of increments; of other models their own.

    Raises:
        FileNotFoundError, ValueError: as :func:`part_of`.
    """
    prior = read_document(directory / CARD, _Format).format == "genda-increments"
    return part_of(directory, AUTOENCODER) if prior else directory


def latent_card(directory: Path) -> dict[str, Any] | None:
    """The document of a latent model's card, that of a prior with its autoencoder's channels and grid; None for other models."""
    found = read_document(directory / CARD, _Format).format
    if found == "genda-autoencoder":
        return read_document(directory / CARD, AutoencoderCard).model_dump(mode="json")
    if found != "genda-increments":
        return None
    space = read_document(part_of(directory, AUTOENCODER) / CARD, AutoencoderCard).model_dump(mode="json")
    document = read_document(directory / CARD, IncrementCard).model_dump(mode="json")
    return {"channels": space["channels"], "grid": space["grid"], **document, "autoencoder": space["autoencoder"]}


def has_autoencoder(directory: Path) -> bool:
    """Whether the latents of a prior of increments are other than the states themselves, as its card tells.

    Raises:
        FileNotFoundError, ValueError: where the card is missing or wrong.
    """
    return read_document(part_of(directory, AUTOENCODER) / CARD, AutoencoderCard).autoencoder.kind != "identity"


def latent_digests(directory: Path) -> tuple[str, str, str]:
    """Digests of network, base and autoencoder, as the cards tell them.

    Raises:
        FileNotFoundError, ValueError: where a card is missing or wrong.
    """
    card = read_document(directory / CARD, IncrementCard)
    space = read_document(part_of(directory, AUTOENCODER) / CARD, AutoencoderCard)
    return card.sha256, card.base_sha256, space.sha256
