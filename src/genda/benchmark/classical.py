"""Classical methods as rows of a suite on the sphere, and the background statistics they need.

Covariances are fitted to errors of training backgrounds, in units of the suite's prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from genda.benchmark.archive import Archive, open_archive
from genda.benchmark.generative import model_of
from genda.benchmark.twin_suite import EnvarSpec, LetkfSpec, StaticCovarianceSpec, VariationalSpec
from genda.diffusion.gaussian import ERROR_SIGMAS, SphericalGaussian, homogeneous_covariance
from genda.forecast.backgrounds import LEADS
from genda.methods import Method
from genda.methods.envar import EnVar
from genda.methods.letkf import LETKF
from genda.methods.localisation import Localisation, sphere
from genda.methods.variational import Variational
from genda.methods.zonal_covariance import ZonalCovariance

OUTER = 3
"""Linearisations of 3D-Var where an operator is not linear."""


@dataclass(frozen=True)
class TrainingErrors:
    """Which training backgrounds statistics are fitted to, and in whose units."""

    data: Path | None
    prior: str
    lead: int
    pairs: int


def classical_method(
    spec: VariationalSpec | LetkfSpec | EnvarSpec, training: TrainingErrors, linear: bool = True
) -> Method:
    """The method of a row.

    Args:
        spec: its settings.
        training: what B is fitted to.
        linear: whether all operators are.
    """
    if isinstance(spec, VariationalSpec):
        return Variational(static_covariance(training, spec.covariance), 1 if linear else OUTER)
    localisation = localisation_of(training.prior, spec.radius)
    if isinstance(spec, LetkfSpec):
        return LETKF(localisation, prior_inflation=spec.prior_inflation)
    static = static_covariance(training, spec.covariance) if spec.static_weight else None
    return EnVar(localisation, static, spec.static_weight, spec.ensemble_weight)


def selected(archive: Archive, values: Tensor, channels: tuple[str, ...]) -> Tensor:
    """The given channels of an archive's values (..., channel, lat, lon)."""
    if channels == archive.channels:
        return values
    return values[..., [archive.channels.index(name) for name in channels], :, :]


@lru_cache(maxsize=4)
def _errors(which: TrainingErrors) -> Tensor:
    """In normalised units, shape (pair, channel, lat, lon)."""
    archive, model = open_archive(which.data, "test"), model_of(which.prior)
    errors = selected(archive, archive.errors(which.lead, which.pairs), model.channels)
    return (errors / model.normalisation.std.view(-1, 1, 1)).float()


def mean_error(which: TrainingErrors) -> Tensor:
    """Of training backgrounds, shape (channel, lat, lon)."""
    return _errors(which).mean(dim=0)


def _anomalies(which: TrainingErrors) -> Tensor:
    return _errors(which) - mean_error(which)


@lru_cache(maxsize=2)
def static_covariance(which: TrainingErrors, spec: StaticCovarianceSpec) -> ZonalCovariance:
    """B of the errors about their mean."""
    sample = _anomalies(which)
    if spec.sample != "errors":
        other = _anomalies(replace(which, lead=sum(LEADS) - which.lead))
        if spec.sample == "nmc":
            sample = other - sample
        else:
            factor = (sample.var(dim=(0, 2, 3)) / other.var(dim=(0, 2, 3))).sqrt()
            sample = torch.cat([sample, factor.view(-1, 1, 1) * other])
    grid = model_of(which.prior).grid
    sample = spec.scale**0.5 * sample
    if spec.form == "isotropic":
        return ZonalCovariance.isotropic(sample, grid, spec.radius)
    zonal = ZonalCovariance.fit(sample, grid, spec.radius)
    if not spec.shrinkage:
        return zonal
    lagged = zonal.lagged.mul_(1 - spec.shrinkage)
    lagged.add_(ZonalCovariance.isotropic(sample, grid, spec.radius).lagged, alpha=spec.shrinkage)
    return ZonalCovariance(lagged, zonal.shape)


@lru_cache(maxsize=2)
def localisation_of(prior: str, radius: float) -> Localisation:
    """A taper on a prior's grid, ``radius`` in m."""
    return Localisation(sphere(model_of(prior).grid), radius)


@lru_cache(maxsize=2)
def homogeneous_errors(which: TrainingErrors, inflation: float) -> SphericalGaussian:
    """The errors about their mean as a spherical Gaussian, ``inflation`` times their covariance."""
    sample = inflation**0.5 * _anomalies(which)
    grid = model_of(which.prior).grid
    unmeasured = torch.ones(len(ERROR_SIGMAS), sample.shape[1])
    return SphericalGaussian(grid, *homogeneous_covariance(sample, grid), unmeasured)
