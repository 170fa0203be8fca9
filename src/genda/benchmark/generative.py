"""The diffusion prior as a row of any suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator

from genda import assimilation as library
from genda.checkpoint import Model, check_model
from genda.diffusion.gaussian import SphericalGaussian
from genda.diffusion.sampler import Sampler
from genda.documents import Strict
from genda.guidance.sda import default_gammas, stable_gammas
from genda.methods import Method
from genda.problem import Source
from genda.settings import refuse_unread
from genda.state_methods import READ_BY, default_sampler, make_method

METHODS = {"mmps": "fusion", "sda": "fusion-sda", "gaussian": "fusion-gaussian", "none": "unconditional"}
KNOWN = {
    "settings": ("iterations", "gamma", "guidance_scale", "clip", "batch"),
    "sampler": tuple(field.name for field in fields(Sampler)),
}
"""Keys of a row's mappings."""


class FusionSpec(Strict):
    """Diffusion prior with guidance.

    Attributes:
        guidance: ``none`` samples the prior.
        members: of the ensemble; the suite's own where not given.
        background: make the background one more source, where there is one.
        background_inflation: factor on the covariance of the background's errors.
        settings: of :func:`genda.state_methods.make_method`.
        sampler: of :func:`genda.state_methods.default_sampler`.
        only: scenarios it takes part in; all where empty.
    """

    method: Literal["fusion"]
    guidance: Literal["mmps", "sda", "gaussian", "none"] = "mmps"
    members: int | None = Field(default=None, ge=2)
    background: bool = False
    background_inflation: float = Field(default=1.0, gt=0)
    settings: Mapping[str, int | float] = {}
    sampler: Mapping[str, int | float | bool] = {}
    only: tuple[str, ...] = ()

    @field_validator("settings", "sampler")
    @classmethod
    def _known_names(cls, given: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        known = KNOWN[str(info.field_name)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"found no setting {', '.join(unknown)}, expected some of {', '.join(known)}")
        return given

    @model_validator(mode="after")
    def _read_settings(self) -> Self:
        settings = {name: value for name, value in self.settings.items() if name != "batch"}
        refuse_unread(METHODS[self.guidance], settings, READ_BY)
        return self


def fusion_method(
    spec: FusionSpec, model: Model, sources: Sequence[Source], errors: SphericalGaussian | None = None
) -> Method:
    """The method of a row; SDA without a Γ takes that of :func:`genda.guidance.sda.default_gammas`."""
    sampler = default_sampler(model, **spec.sampler)
    settings: dict[str, Any] = dict(spec.settings)
    if spec.guidance == "sda" and "gamma" not in settings:
        about = torch.zeros(1, len(model.channels), *model.grid.shape)
        settings["gamma"] = default_gammas(stable_gammas(sampler, sources, about))
    return make_method(METHODS[spec.guidance], model, sampler=sampler, errors=errors, **settings)


def check_base(
    prior: str, methods: Mapping[str, Any], interpolated: Sequence[str] = ("optimal-interpolation",)
) -> None:
    """Refuse a prior that is not on a spherical Gaussian where a row needs that; no tensor is read.

    Args:
        prior: by name or directory.
        methods: rows by name.
        interpolated: methods that need an optimal interpolation.

    Raises:
        ValueError: naming the rows.
    """
    needing = [
        name
        for name, spec in methods.items()
        if spec.method in interpolated
        or (isinstance(spec, FusionSpec) and (spec.background or spec.guidance == "gaussian"))
    ]
    if needing and check_model(prior).architecture.base.kind != "spherical":
        raise ValueError(f"{prior}: found no spherical Gaussian base, expected one for {', '.join(needing)}")


def check_unseen(prior: str, training: Mapping[str, Any], times: NDArray[np.datetime64]) -> None:
    """Refuse to judge a prior on dates it was trained on, or the network it began with was.

    A card without a training period is taken at its word.
    """
    if isinstance(training.get("initial"), dict):
        check_unseen(prior, training["initial"], times)
    if "first_time" not in training or "last_time" not in training:
        return
    first, last = (np.datetime64(training[name]) for name in ("first_time", "last_time"))
    seen = times[(times >= first) & (times <= last)]
    if seen.size:
        raise ValueError(
            f"{prior}: trained on {first} to {last}, found {seen.size} of {times.size} dates to judge it on among "
            f"them, first {seen[0]}, expected none"
        )


model_of = lru_cache(maxsize=4)(library.load_prior)
"""A model by name or directory, kept in memory."""
