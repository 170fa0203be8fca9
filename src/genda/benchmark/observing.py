"""Observations of a truth as a suite's networks make them, the same for every method; and what goes with which grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genda import assimilation as library
from genda.benchmark.generative import check_base
from genda.benchmark.twin_suite import (
    EXACT,
    ColumnsSpec,
    CycledSuite,
    FieldSpec,
    Network,
    QuantitySpec,
    TwinSuite,
    takes_part,
)
from genda.checkpoint import Model, check_model
from genda.diffusion.noise import derived_seed
from genda.forecast.backgrounds import LEADS
from genda.grid import LatLonGrid
from genda.linalg import Diagonal
from genda.observations.networks import columns_table, random_columns, station_network
from genda.observations.operators import LinearOperator, Operator, coarse
from genda.observations.quantities import QUANTITIES
from genda.problem import Source
from genda.sources import point_operator, quantity_operator
from genda.state import State


def observed(network: Network, model: Model, x: Tensor, time: np.datetime64, seed: int, number: int) -> Source:
    """One network's observations of a truth.

    Args:
        network: what to observe, and how well.
        model: channels, grid and units.
        x: the truth in normalised anomalies, shape (1, channel, lat, lon).
        time: valid time; places and noise are drawn anew for each.
        seed: of the suite.
        number: of the network among those of its scenario.
    """
    name = f"{network.kind} {number}"
    rng = np.random.default_rng(derived_seed(seed, time, "network", number))
    operator: Operator
    if isinstance(network, FieldSpec):
        target = model.grid.coarsened(network.factor)
        operator = LinearOperator(coarse(model.grid, model.channels, target), (len(model.channels), *model.grid.shape))
        noise, error = 0.0, network.error
    elif isinstance(network, QuantitySpec):
        quantity = QUANTITIES[network.kind](model.channels)
        sites = random_columns(model.grid, network.density, rng)
        operator = quantity_operator(model, quantity, sites, time)
        noise = error = network.error or quantity.error
    else:
        sites = (
            random_columns(model.grid, network.density, rng) if isinstance(network, ColumnsSpec) else station_network()
        )
        operator, _ = point_operator(model, columns_table(sites, model.channels, time))
        noise, error = network.noise, network.error or max(network.noise, EXACT)
    generator = torch.Generator().manual_seed(derived_seed(seed, time, "noise", number))
    values = operator(x)[0]
    values = values + noise * torch.randn(values.shape, generator=generator)
    return Source(values, operator, Diagonal(torch.full_like(values, error**2)), name)


def misfit(members: Tensor, sources: Sequence[Source]) -> float:
    """Mean of (y - H(x))² / R over members (member, channel, lat, lon) and observations."""
    misfits = [
        source.misfit(members).square() @ source.covariance.inverse(torch.ones_like(source.values))
        for source in sources
    ]
    return float(torch.stack(misfits).sum(dim=0).mean()) / sum(len(source.values) for source in sources)


def check_fits(suite: TwinSuite | CycledSuite, truth: State) -> None:
    """Refuse a prior that does not fit the data or its rows, and networks that do not fit its grid; no tensor is read.

    Args:
        suite: names both.
        truth: a state of the data.

    Raises:
        ValueError: naming what does not fit.
    """
    card = check_model(suite.prior)
    grid = LatLonGrid(card.grid.latitude, card.grid.longitude)
    truth.select(card.channels)
    if not library.same_grid(grid, truth.grid):
        raise ValueError(f"{suite.prior}: found a grid of {grid}, expected that of the data, {truth.grid}")
    for scenario, networks in suite.scenarios.items():
        for network in networks:
            try:
                _check_network(network, grid, card.channels)
                if isinstance(network, QuantitySpec):
                    _check_nonlinear(suite, scenario)
            except ValueError as error:
                raise ValueError(f"suite {suite.suite}: scenarios.{scenario}: {error}") from None
    check_base(suite.prior, suite.methods)


def check_lead(suite: TwinSuite | CycledSuite) -> None:
    """Refuse a lead that no backgrounds have.

    Raises:
        ValueError: naming it and those there are.
    """
    if suite.lead not in LEADS:
        expected = " or ".join(map(str, LEADS))
        raise ValueError(f"suite {suite.suite}: lead: found {suite.lead} h, expected {expected}")


def _check_nonlinear(suite: TwinSuite | CycledSuite, scenario: str) -> None:
    for name, spec in suite.methods.items():
        if spec.method in ("letkf", "diffda") and takes_part(spec, scenario):
            raise ValueError(f"found methods.{name}, which reads grid values alone, expected none (only: of the row)")


def _check_network(network: Network, grid: LatLonGrid, channels: Sequence[str]) -> None:
    if isinstance(network, QuantitySpec):
        QUANTITIES[network.kind](channels)
    if isinstance(network, ColumnsSpec | QuantitySpec):
        random_columns(grid, network.density, np.random.default_rng(0))
    if isinstance(network, FieldSpec):
        grid.coarsened(network.factor)
