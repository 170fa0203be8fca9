"""A trained model on disk: ``model.safetensors`` (tensors) and ``model.json`` (what they are); nothing is unpickled.

The card names channels, grid, architecture and how the model was made, and carries the digest of the tensor file, so
that two halves of different models are not mistaken for one. Network weights may be stored in half precision;
climatology, Gaussian base and static maps stay in single precision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from genda.assets import model_directory
from genda.atomic import replacing
from genda.diffusion.denoiser import IsotropicGaussian, PreconditionedDenoiser
from genda.diffusion.gaussian import ERROR_SIGMAS, SphericalGaussian
from genda.documents import Strict, first_complaint
from genda.grid import LatLonGrid
from genda.nn.unet import UNet
from genda.sphere import SphericalTransform
from genda.state import Normalisation
from genda.variables import channels as parse_channels

WEIGHTS, CARD = "model.safetensors", "model.json"


class UNetConfig(Strict):
    """Arguments of :class:`genda.nn.unet.UNet` that do not follow from the data."""

    base: int = Field(default=64, ge=4)
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int | tuple[int, ...] = 2
    attention: tuple[int, ...] = ()
    patch: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    resample_blocks: bool = False
    head: int | None = 64
    embedding: int | None = None
    position: int = Field(default=0, ge=0)


class BaseConfig(Strict):
    """The Gaussian that the network corrects; ``isotropic`` is EDM."""

    kind: Literal["spherical", "isotropic"] = "spherical"
    sigma_data: float = Field(default=1.0, gt=0)


class Architecture(Strict):
    """What is needed to build a denoiser before its tensors are read."""

    network: UNetConfig = UNetConfig()
    base: BaseConfig = BaseConfig()
    condition: Literal["season", "none"] = "season"
    static: tuple[str, ...] = ()


class GridCard(Strict):
    latitude: tuple[float, ...]
    longitude: tuple[float, ...]


Document = TypeVar("Document", bound=BaseModel)


class Card(Strict):
    """``model.json``."""

    format: Literal["genda-model"] = "genda-model"
    version: Literal[1] = 1
    channels: tuple[str, ...]
    grid: GridCard
    architecture: Architecture
    harmonics: int = Field(ge=0)
    sha256: str
    training: dict[str, Any] = Field(default_factory=dict)


class StateModel(Protocol):
    """What every model says of the states it is about."""

    @property
    def normalisation(self) -> Normalisation: ...

    @property
    def channels(self) -> tuple[str, ...]: ...

    @property
    def grid(self) -> LatLonGrid: ...

    @property
    def card(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Model:
    """A denoiser with all that its inputs and outputs mean.

    Attributes:
        denoiser: the preconditioned network, in evaluation mode, on normalised anomalies.
        normalisation: between physical units and anomalies.
        channels: channel identifiers in order.
        grid: the grid.
        architecture: what was built.
        card: how it was made: data, seed, images seen, validation errors.
    """

    denoiser: PreconditionedDenoiser
    normalisation: Normalisation
    channels: tuple[str, ...]
    grid: LatLonGrid
    architecture: Architecture
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def static(self) -> dict[str, Tensor]:
        """Static maps by name, as the network sees them, each (lat, lon)."""
        maps = self.denoiser.static
        return {} if maps is None else dict(zip(self.architecture.static, maps, strict=True))


def build_network(architecture: Architecture, channels: int, grid: LatLonGrid) -> UNet:
    """A freshly initialised network (from torch's global generator) that fits the data."""
    sees_base = architecture.base.kind != "isotropic"
    return UNet(
        in_channels=channels * (2 if sees_base else 1) + len(architecture.static),
        out_channels=channels,
        condition=2 if architecture.condition == "season" else 0,
        grid=grid.shape,
        periodic=grid.periodic,
        **architecture.network.model_dump(),
    )


def build_denoiser(
    architecture: Architecture, network: nn.Module, base: nn.Module, static: Tensor | None
) -> PreconditionedDenoiser:
    """The network on its base; the isotropic base is not shown to the network (EDM to the letter)."""
    return PreconditionedDenoiser(network, base, static, sees_base=architecture.base.kind != "isotropic")


def save_model(directory: str | Path, model: Model, half: bool = True) -> None:
    """Write the two files, each whole or not at all.

    Args:
        directory: created where missing.
        model: the model.
        half: store the network's weights in float16.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {f"denoiser.{name}": value for name, value in model.denoiser.state_dict().items()}
    if half:
        tensors = {name: v.half() if name.startswith("denoiser.network.") else v for name, v in tensors.items()}
    tensors |= {"normalisation.mean": model.normalisation.mean, "normalisation.std": model.normalisation.std}
    blob = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    card = Card(
        channels=model.channels,
        grid=GridCard(latitude=model.grid.latitude, longitude=model.grid.longitude),
        architecture=model.architecture,
        harmonics=(model.normalisation.mean.shape[0] - 1) // 2,
        sha256=hashlib.sha256(blob).hexdigest(),
        training=model.card,
    )
    write_atomically(directory / WEIGHTS, blob)
    write_atomically(directory / CARD, (card.model_dump_json(indent=1) + "\n").encode())


def load_model(directory: str | Path) -> Model:
    """Read a model strictly: every tensor present, none unknown, all shapes as the card says.

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: naming the file, what was found and what was expected.
    """
    directory = Path(directory)
    card = read_card(directory)
    tensors = read_weights(directory / WEIGHTS, card.sha256)
    try:
        grid = LatLonGrid(card.grid.latitude, card.grid.longitude)
        parse_channels(card.channels)
        denoiser = _empty_denoiser(card, grid)
    except ValueError as error:
        raise ValueError(f"{directory / CARD}: {error}") from error
    expected = {f"denoiser.{name}": tuple(value.shape) for name, value in denoiser.state_dict().items()}
    expected["normalisation.std"] = (len(card.channels),)
    check_tensors(directory / WEIGHTS, {k: v for k, v in tensors.items() if k != "normalisation.mean"}, expected)
    normalisation = normalisation_of(directory / WEIGHTS, tensors, card.harmonics)
    state = {k.removeprefix("denoiser."): v.float() for k, v in tensors.items() if k.startswith("denoiser.")}
    base = denoiser.base
    if isinstance(base, SphericalGaussian):  # rebuilt, because it derives tensors from the ones it stores
        base = SphericalGaussian(grid, state["base.covariance"], state["base.remainder"], state["base.error"])
    denoiser = build_denoiser(card.architecture, denoiser.network, base, denoiser.static)
    denoiser.load_state_dict(state, strict=True)
    denoiser.eval().requires_grad_(False)
    return Model(denoiser, normalisation, card.channels, grid, card.architecture, card.training)


def read_card(directory: str | Path) -> Card:
    """The validated card of a model directory.

    Raises:
        ValueError: naming the file and the first thing wrong with it.
    """
    return read_document(Path(directory) / CARD, Card)


def read_document(path: Path, kind: type[Document]) -> Document:
    """A card of some kind.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: naming the file and the first thing wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a model directory with {CARD} and {WEIGHTS}")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {first_complaint(error)}") from error


def read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a file, all finite.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is not the one that the card names, or holds a value that is not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a model directory with {CARD} and {WEIGHTS}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise ValueError(f"{path}: damaged or from another model, found sha256 {found[:12]}, expected {digest[:12]}")
    tensors, _ = read_tensors(path)
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name}: found a value that is not finite")
    return tensors


def normalisation_of(path: Path, tensors: Mapping[str, Tensor], harmonics: int) -> Normalisation:
    """The climatology among the tensors of a model.

    Raises:
        ValueError: for a mean of another shape than the standard deviations and harmonics ask for.
    """
    std = tensors["normalisation.std"] if "normalisation.std" in tensors else torch.empty(0)
    mean = tensors["normalisation.mean"] if "normalisation.mean" in tensors else torch.empty(0)
    if mean.ndim != 4 or mean.shape[:2] != (1 + 2 * harmonics, len(std)):
        raise ValueError(
            f"{path}: normalisation.mean: found shape {tuple(mean.shape)}, expected "
            f"({1 + 2 * harmonics}, {len(std)}, lat or 1, lon or 1)"
        )
    return Normalisation(mean.float(), std.float())


def check_model(name: str | Path) -> Card:
    """The card of a model that :func:`load_model` should be able to read: both files are there and whole; no tensor is read.

    For configurations that name a model, before any work starts. The digest is left to :func:`load_model`.

    Args:
        name: of a shipped model, or a directory.

    Raises:
        ValueError: naming the file, what was found and what was expected, also where it is missing.
    """
    try:
        directory = model_directory(name)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    card, path = read_card(directory), directory / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a model directory with {CARD} and {WEIGHTS}")
    try:
        with safe_open(path, framework="pt") as tensors:  # reads the header, which tells how long the file must be
            found = list(tensors.get_slice("normalisation.std").get_shape())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: expected the tensors of a model, found something else ({error})") from error
    if found != [len(card.channels)]:
        raise ValueError(
            f"{path}: found standard deviations {found}, expected one for each of {len(card.channels)} channels"
        )
    return card


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        ValueError: where it is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a safetensors file, found something else ({error})") from error


def check_tensors(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse missing, unknown and misshapen tensors, naming the first of each.

    Raises:
        ValueError: naming the file, the tensor, what was found and what was expected.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"{path}: found {len(found)} tensors without {missing[0]}, expected {len(expected)} with it")
    if unknown := sorted(found.keys() - expected.keys()):
        raise ValueError(f"{path}: found tensor {unknown[0]}, expected no such tensor for this architecture")
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise ValueError(f"{path}: {name}: found shape {tuple(found[name].shape)}, expected {shape}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also when the machine stops."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A safetensors document with JSON metadata."""
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return bytes(save(on_cpu, {key: json.dumps(value) for key, value in metadata.items()}))


def _empty_denoiser(card: Card, grid: LatLonGrid) -> PreconditionedDenoiser:
    """The denoiser of a card, to be filled; it knows names and shapes."""
    architecture, channels = card.architecture, len(card.channels)
    base: nn.Module
    if architecture.base.kind == "spherical":
        lmax = SphericalTransform(grid).lmax
        eye = torch.eye(channels).expand(lmax, -1, -1).contiguous()
        base = SphericalGaussian(
            grid, eye, torch.ones(channels, grid.shape[0]), torch.ones(len(ERROR_SIGMAS), channels)
        )
    else:
        base = IsotropicGaussian(architecture.base.sigma_data)
    static = torch.zeros(len(architecture.static), *grid.shape) if architecture.static else None
    with torch.random.fork_rng(devices=[]):  # initial weights are about to be overwritten
        network = build_network(architecture, channels, grid)
    return build_denoiser(architecture, network, base, static)
