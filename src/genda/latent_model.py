"""Latent models on disk: an autoencoder, and a prior of background errors in its latent space.

Both are directories as in :mod:`genda.checkpoint`. That of a prior holds its autoencoder's as a folder, so that it is whole by
itself, and its Gaussian in a file of its own, unless its card names a shipped model that it shares both with:

    model.json  model.safetensors (network, scales)  base.safetensors (modes)  autoencoder/{model.json, model.safetensors}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from genda.assets import model_directory
from genda.checkpoint import (
    CARD,
    WEIGHTS,
    GridCard,
    check_tensors,
    normalisation_of,
    read_document,
    read_tensors,
    read_weights,
    write_atomically,
)
from genda.diffusion.increments import IncrementDenoiser, IncrementPrior
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.files import Times
from genda.grid import LatLonGrid
from genda.latent_card import (
    AUTOENCODER,
    AutoencoderCard,
    AutoencoderSpec,
    IncrementArchitecture,
    IncrementCard,
    StateCard,
    latent_digests,
    part_of,
    space_directory,
)
from genda.nn.autoencoder import Autoencoder
from genda.nn.layers import Conv2d
from genda.nn.observation_encoder import ConvolutionalEncoder, NoEncoder, ObservationConditioned, VirtualReconstruction
from genda.nn.transformer import DiT
from genda.nn.unet import UNet
from genda.state import Normalisation, season
from genda.variables import channels as parse_channels

BASE = "base.safetensors"


@dataclass(frozen=True)
class AutoencoderModel:
    """An autoencoder with all that its inputs mean.

    Attributes:
        autoencoder: in evaluation mode, of normalised anomalies.
        weights: of channels in its loss, shape (channel,).
        normalisation, channels, grid: of the states.
        spec: what was built.
        card: how it was made.
    """

    autoencoder: Autoencoder
    weights: Tensor
    normalisation: Normalisation
    channels: tuple[str, ...]
    grid: LatLonGrid
    spec: AutoencoderSpec
    card: dict[str, Any] = field(default_factory=dict)

    @property
    @torch.no_grad()
    def climate(self) -> Tensor:
        """The latent of the climatology, shape (1, latent, lat, lon)."""
        anomaly = self.weights.new_zeros(1, len(self.channels), *self.grid.shape)
        return self.autoencoder.encode(anomaly).mean

    @property
    def encoded(self) -> bool:
        """Whether latents are other than the states themselves."""
        return self.spec.kind != "identity"

    @property
    def reach(self) -> Tensor:
        """How much state, in units of the loss, a unit of each latent channel decodes to by the linear map, shape (latent,)."""
        weights, synthesis = self.weights.sqrt(), self.autoencoder.synthesis
        if not isinstance(synthesis, Conv2d):
            return weights
        columns = synthesis.weight.detach().flatten(1)
        reach: Tensor = (weights.repeat_interleave(self.spec.patch**2).view(-1, 1) * columns).norm(dim=0)
        return reach


@dataclass(frozen=True)
class LatentModel:
    """A prior of the truth given a background, for backgrounds of several leads.

    Attributes:
        space: the autoencoder.
        denoiser: of increments, in evaluation mode.
        mean: of latent errors by lead, shape (lead, latent, lat, lon).
        scale: of latent errors by lead, shape (lead, latent, 1, 1).
        static: maps on the latent's grid, shape (static, lat, lon).
        floor: variance of errors that the latent can't hold, shape (lead, channel).
        leads: hours, as the data names them.
        architecture: what was built.
        error: variance of background errors, shape (lead, channel), of a network that is shown observations.
        damping: of backgrounds, shape (lead, modes + 1); None where increments are about the mean alone.
        card: how it was made.
    """

    space: AutoencoderModel
    denoiser: IncrementDenoiser
    mean: Tensor
    scale: Tensor
    static: Tensor
    floor: Tensor
    leads: tuple[int, ...]
    architecture: IncrementArchitecture
    error: Tensor | None = None
    damping: Tensor | None = None
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def normalisation(self) -> Normalisation:
        return self.space.normalisation

    @property
    def channels(self) -> tuple[str, ...]:
        return self.space.channels

    @property
    def grid(self) -> LatLonGrid:
        return self.space.grid

    @property
    def about_analysis(self) -> bool:
        """Whether what a network that is shown observations corrects are errors of the Gaussian's own analysis."""
        seen = self.architecture.observations
        return seen is not None and seen.about == "analysis"

    def prior(self, lead: int) -> IncrementPrior:
        """The prior given backgrounds of one lead.

        Raises:
            ValueError: for a lead that it was not trained on.
        """
        i = self._index(lead)
        error, damping = (None if v is None else v[i] for v in (self.error, self.damping))
        return IncrementPrior(
            self.space.autoencoder,
            self.denoiser,
            mean=self.mean[i],
            scale=self.scale[i],
            static=self.static,
            floor=self.floor[i],
            error=error,
            damping=damping,
            about_analysis=self.about_analysis,
        ).eval()

    def error_std(self, lead: int) -> Tensor:
        """What errors of a background have by channel and latitude, in normalised units, shape (channel, lat, 1).

        The standard deviation of the Gaussian of latent errors, decoded by the linear map, and of what the latent can't hold.

        Raises:
            ValueError: for a lead that it was not trained on.
        """
        i, patch = self._index(lead), self.space.spec.patch if self.space.encoded else 1
        weight = self.space.autoencoder.linear_weight * self.scale[i].flatten()
        local = self.denoiser.base.local_covariance(self.scale.new_tensor(torch.inf))  # type: ignore[operator]
        variance = torch.einsum("ck,lkj,cj->cl", weight, local, weight)
        rows = variance.view(len(self.channels), patch, patch, -1).mean(dim=2).mT.flatten(1)
        return (rows + self.floor[i].view(-1, 1)).clamp(min=0).sqrt().unsqueeze(-1)

    def condition(self, times: Times, lead: int) -> Tensor:
        """What the network is told beside maps: season and lead, shape (time, 3)."""
        return increment_condition(times, self._index(lead), len(self.leads))

    def lead_or_first(self, lead: int | None) -> int:
        """The lead asked for, in h, or the first that the model knows.

        Raises:
            ValueError: for one that it was not trained on.
        """
        return self.leads[0 if lead is None else self._index(lead)]

    def _index(self, lead: int) -> int:
        if lead not in self.leads:
            raise ValueError(f"lead: found {lead} h, expected one of {', '.join(map(str, self.leads))}")
        return self.leads.index(lead)


def increment_condition(times: Times, lead: int, leads: int) -> Tensor:
    """Season and the number of the lead on a scale from 0 to 1, shape (time, 3)."""
    position = torch.full((len(times), 1), lead / max(leads - 1, 1))
    return torch.cat([season(times), position], dim=1)


def build_autoencoder(spec: AutoencoderSpec, channels: int, grid: LatLonGrid) -> Autoencoder:
    """A freshly initialised autoencoder (from torch's global generator).

    Raises:
        ValueError: for a region: the Gaussian of errors that goes with a latent is homogeneous along circles of latitude.
    """
    if not grid.periodic:
        raise ValueError(
            f"autoencoder: found a region of {grid.shape}, expected whole circles; train a prior of states"
        )
    return Autoencoder(channels, grid=grid.shape, **spec.model_dump())


def build_increment_network(
    architecture: IncrementArchitecture, spec: AutoencoderSpec, names: Sequence[str], grid: tuple[int, int]
) -> nn.Module:
    """A freshly initialised network of increments.

    Args:
        architecture: what to build.
        spec: of the autoencoder in whose latent increments lie.
        names: channels of the states.
        grid: of the latent, (lat, lon).
    """
    seen = architecture.observations
    inputs, maps = spec.latent * (2 if architecture.sees_base else 1), spec.latent + len(architecture.static)
    maps += spec.latent if seen is not None and seen.about == "analysis" else 0
    folded = 2 * len(names) * spec.patch**2
    features = 0 if seen is None else folded if seen.encoder == "none" else seen.width
    context = maps + features
    network: nn.Module
    if architecture.dit is not None:
        network = DiT(inputs, spec.latent, grid, context, 3, **architecture.dit.model_dump())
    else:
        assert architecture.unet is not None
        network = UNet(inputs + context, spec.latent, 3, grid=grid, **architecture.unet.model_dump())
    if seen is None:
        return network
    identifiers = [item.field.id for item in parse_channels(names)]
    fields = [list(dict.fromkeys(identifiers)).index(name) for name in identifiers]
    encoder: nn.Module
    if seen.encoder == "virtual":
        encoder = VirtualReconstruction(fields, features, grid, spec.patch, seen.width, seen.scales, seen.head)
    elif seen.encoder == "convolutional":
        encoder = ConvolutionalEncoder(len(names), features, spec.patch, seen.width, seen.scales)
    else:
        encoder = NoEncoder(spec.patch)
    return ObservationConditioned(network, encoder, maps, spec.patch)


def save_autoencoder(directory: Path, model: AutoencoderModel) -> None:
    """Write the two files, each whole or not at all; weights in half precision."""
    tensors = {f"autoencoder.{name}": value.half() for name, value in model.autoencoder.state_dict().items()}
    tensors |= {"weights": model.weights.float()}
    tensors |= {"normalisation.mean": model.normalisation.mean, "normalisation.std": model.normalisation.std}
    directory.mkdir(parents=True, exist_ok=True)
    digest = _write(directory / WEIGHTS, tensors)
    card = AutoencoderCard(
        channels=model.channels,
        grid=GridCard(latitude=model.grid.latitude, longitude=model.grid.longitude),
        autoencoder=model.spec,
        harmonics=(model.normalisation.mean.shape[0] - 1) // 2,
        sha256=digest,
        training=model.card,
    )
    write_atomically(directory / CARD, (card.model_dump_json(indent=1) + "\n").encode())


def load_autoencoder(name: str | Path) -> AutoencoderModel:
    """A shipped autoencoder by its name, or that of a directory; that of a prior of increments too.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: naming the file, what was found and what was expected.
    """
    directory = space_directory(model_directory(name))
    card = read_document(directory / CARD, AutoencoderCard)
    path = directory / WEIGHTS
    tensors = read_weights(path, card.sha256)
    try:
        grid = LatLonGrid(card.grid.latitude, card.grid.longitude)
        parse_channels(card.channels)
        with torch.random.fork_rng(devices=[]):  # initial weights are about to be overwritten
            autoencoder = build_autoencoder(card.autoencoder, len(card.channels), grid)
    except ValueError as error:
        raise ValueError(f"{directory / CARD}: {error}") from error
    expected = {f"autoencoder.{name}": tuple(value.shape) for name, value in autoencoder.state_dict().items()}
    expected |= {name: (len(card.channels),) for name in ("weights", "normalisation.std")}
    check_tensors(path, {k: v for k, v in tensors.items() if k != "normalisation.mean"}, expected)
    normalisation = normalisation_of(path, tensors, card.harmonics)
    _load(autoencoder, tensors, "autoencoder.")
    weights = tensors["weights"].float()
    return AutoencoderModel(autoencoder, weights, normalisation, card.channels, grid, card.autoencoder, card.training)


def save_latent_model(
    directory: Path, model: LatentModel, inherited: str | Path | None = None, shares: str | None = None
) -> None:
    """Write the directory, each file whole or not at all, the card last; the network in half precision, modes in bytes.

    Args:
        directory: where to.
        model: what to.
        inherited: a model, by name or directory, whose Gaussian this one has: its file is copied, for rounding modes twice would
            change them.
        shares: a shipped model whose Gaussian and autoencoder this one has: neither is written, the card names it instead.

    Raises:
        ValueError: for one to share with that has another autoencoder.
    """
    network = {f"network.{name}": value.half() for name, value in model.denoiser.network.state_dict().items()}
    space_sha256 = None
    if shares is not None:
        inherited, space_sha256 = shares, latent_digests(model_directory(shares))[2]
        theirs, ours = load_autoencoder(shares).autoencoder.state_dict(), model.space.autoencoder.state_dict()
        if not all(torch.equal(theirs[name], value) for name, value in ours.items()):
            raise ValueError(f"shares: found another autoencoder in {shares}, expected the model's")
    else:
        save_autoencoder(directory / AUTOENCODER, model.space)
    rest = {"mean": model.mean, "scale": model.scale, "static": model.static, "floor": model.floor}
    rest |= {name: v for name, v in (("error", model.error), ("damping", model.damping)) if v is not None}
    blob = (
        _rounded(model.denoiser.base) if inherited is None else part_of(model_directory(inherited), BASE).read_bytes()
    )
    directory.mkdir(parents=True, exist_ok=True)
    if shares is None:
        write_atomically(directory / BASE, blob)
    card = IncrementCard(
        architecture=model.architecture,
        leads=model.leads,
        sha256=_write(directory / WEIGHTS, network | rest),
        base_sha256=hashlib.sha256(blob).hexdigest(),
        shares=shares,
        space_sha256=space_sha256,
        training=model.card,
    )
    write_atomically(directory / CARD, (card.model_dump_json(indent=1) + "\n").encode())


def load_latent_model(name: str | Path) -> LatentModel:
    """A shipped prior of increments by its name, or that of a directory.

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: naming the file, what was found and what was expected; also where latent and grid do not fit.
    """
    directory = model_directory(name)
    card = read_document(directory / CARD, IncrementCard)
    space, base_file = load_autoencoder(directory), part_of(directory, BASE)
    found = latent_digests(directory)[2]
    if card.space_sha256 not in (None, found):
        raise ValueError(
            f"{directory / CARD}: shares: found an autoencoder {found[:8]}, expected {card.space_sha256[:8]}"
        )
    tensors, modes = read_weights(directory / WEIGHTS, card.sha256), read_weights(base_file, card.base_sha256)
    latent, patch = space.spec.latent, space.spec.patch
    nlat, nlon = space.grid.shape[0] // patch, space.grid.shape[1] // patch
    with torch.random.fork_rng(devices=[]):
        network = build_increment_network(card.architecture, space.spec, space.channels, (nlat, nlon))
    count = len(modes["variance"]) if "variance" in modes else 0
    shapes = {"modes": (count, latent, nlat, 2), "variance": (count,), "wavenumber": (count,), "rest": ()}
    shapes |= {"step": (count,)} if "step" in modes else {}
    check_tensors(base_file, modes, shapes)
    leads, maps, channels = len(card.leads), len(card.architecture.static), len(space.channels)
    expected = {f"network.{name}": tuple(value.shape) for name, value in network.state_dict().items()}
    expected |= {"static": (maps, nlat, nlon), "floor": (leads, channels)}
    expected |= {"mean": (leads, latent, nlat, nlon), "scale": (leads, latent, 1, 1)}
    seen = card.architecture.observations is not None
    expected |= {"error": (leads, channels)} if seen else {}
    expected |= {"damping": (leads, count + 1)} if "damping" in tensors else {}
    check_tensors(directory / WEIGHTS, tensors, expected)
    _load(network, tensors, "network.")
    base = ZonalGaussian(_modes(modes), modes["variance"].float(), modes["wavenumber"], modes["rest"].float(), nlon)
    denoiser = IncrementDenoiser(network, base, card.architecture.sees_base).eval().requires_grad_(False)
    mean, scale, static, floor = (tensors[name].float() for name in ("mean", "scale", "static", "floor"))
    error, damping = (None if tensors.get(name) is None else tensors[name].float() for name in ("error", "damping"))
    return LatentModel(
        space,
        denoiser,
        mean=mean,
        scale=scale,
        static=static,
        floor=floor,
        leads=card.leads,
        architecture=card.architecture,
        error=error,
        damping=damping,
        card=card.training,
    )


def _modes(tensors: dict[str, Tensor]) -> Tensor:
    """Modes of a Gaussian from bytes, or from half precision, orthonormal again within each wavenumber; leading ones move least."""
    modes, wavenumber = tensors["modes"].float(), tensors["wavenumber"]
    if "step" in tensors:
        modes = modes * tensors["step"].view(-1, 1, 1, 1)
    for m in set(wavenumber.tolist()):
        own = (wavenumber == m).nonzero().flatten().flip(0)  # from the largest variance down
        rounded = torch.view_as_complex(modes[own]).flatten(1)
        q, r = torch.linalg.qr(rounded.T)
        phase = r.diagonal() / r.diagonal().abs()
        modes[own] = torch.view_as_real((q * phase).T.reshape(-1, *modes.shape[1:3]).contiguous())
    return modes


def read_normalisation(name: str | Path, channels: Sequence[str]) -> Normalisation:
    """The climatology of any model, in the units of which another is to be trained.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for other channels.
    """
    directory = space_directory(model_directory(name))
    tensors, _ = read_tensors(directory / WEIGHTS)
    document = read_document(directory / CARD, StateCard)
    if document.channels != tuple(channels):
        raise ValueError(
            f"{directory}: normalisation: found channels {' '.join(document.channels)}, expected {' '.join(channels)}"
        )
    return normalisation_of(directory / WEIGHTS, tensors, document.harmonics)


def _load(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in own.items()}, strict=True)
    module.eval().requires_grad_(False)


def _rounded(base: nn.Module) -> bytes:
    """The file of a Gaussian, its modes in bytes."""
    tensors = dict(base.state_dict())
    tensors["step"] = tensors["modes"].abs().amax(dim=(1, 2, 3)) / 127
    tensors["modes"] = (tensors["modes"] / tensors["step"].view(-1, 1, 1, 1)).round().to(torch.int8)
    return _bytes(tensors)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors; their file's digest."""
    blob = _bytes(tensors)
    write_atomically(path, blob)
    return hashlib.sha256(blob).hexdigest()


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    blob: bytes = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    return blob
