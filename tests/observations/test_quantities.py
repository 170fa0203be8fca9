"""Quantities that are no linear function of the state, held to closed forms and finite differences."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from genda import assimilation as library
from genda.observations.quantities import QUANTITIES, log_humidity, transmittance, wind_speed
from genda.sources import quantity_operator

NAMES = ("u500", "q850", "v500", "q500", "t850", "u10", "v10", "q700", "v200")


def test_wind_speed_pairs_components_of_a_level():
    quantity = wind_speed(NAMES)
    assert quantity.channels == ("u500", "v500", "u10", "v10")
    speeds = quantity.function(torch.tensor([3.0, -4.0, 0.0, 0.0]))
    assert speeds.tolist() == pytest.approx([5.0, 0.1], abs=2e-3)


def test_the_logarithm_of_humidity_has_a_bottom():
    quantity = log_humidity(NAMES)
    assert quantity.channels == ("q500", "q700", "q850")
    found = quantity.function(torch.tensor([1e-3, 8e-3, -1e-4], dtype=torch.float64))
    assert found[:2].exp().tolist() == pytest.approx([1e-3, 8e-3], rel=1e-4)
    assert found[2] == pytest.approx(math.log(1e-8), abs=0.1)


def test_the_logarithm_of_humidity_rises_in_single_precision_however_negative_a_state_is():
    humidity = torch.linspace(-0.05, 0.03, 4001, dtype=torch.float32, requires_grad=True)
    found = log_humidity(("q500",)).function(humidity.unsqueeze(-1)).squeeze(-1)
    (slope,) = torch.autograd.grad(found.sum(), humidity)
    assert bool((found.diff() > 0).all())
    torch.testing.assert_close(slope, (humidity.detach() ** 2 + 4e-12).rsqrt(), rtol=1e-4, atol=0)


def test_an_opaque_column_has_nothing_more_to_say():
    quantity = transmittance(NAMES)
    water = 0.5 * ((2e-3 + 5e-3) * 200e2 + (5e-3 + 9e-3) * 150e2) / 9.80665  # kg m⁻², between 500, 700 and 850 hPa
    humid = torch.tensor([2e-3, 5e-3, 9e-3], dtype=torch.float64, requires_grad=True)
    (value,) = quantity.function(humid)
    assert float(value.detach()) == pytest.approx(math.exp(-water / 15))
    (dry,) = torch.autograd.grad(quantity.function(0.1 * humid)[0], humid)
    (moist,) = torch.autograd.grad(quantity.function(3 * humid)[0], humid)
    assert float((moist / 3).abs().max()) < 0.1 * float((dry / 0.1).abs().max())


@pytest.mark.parametrize("name", sorted(QUANTITIES))
def test_channels_that_are_not_there_are_named(name):
    with pytest.raises(ValueError, match="found channels t850 z500, expected"):
        QUANTITIES[name](("t850", "z500"))


@pytest.mark.parametrize("name", sorted(QUANTITIES))
def test_operators_on_anomalies_see_physical_states(name):
    model, time = library.load_prior("embedded"), np.datetime64("2001-04-01", "ns")
    quantity = QUANTITIES[name](model.channels)
    rows, columns = [10, 30], [5, 80]  # sites at grid points, whose values are those of the state
    sites = pd.DataFrame(
        {
            "station": ["a", "b"],
            "latitude": np.asarray(model.grid.latitude)[rows],
            "longitude": np.asarray(model.grid.longitude)[columns],
            "elevation": [0.0, 0.0],
        }
    )
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(model.channels), *model.grid.shape)
    anomalies = 0.3 * torch.randn(shape, dtype=torch.float64, generator=generator)
    operator = quantity_operator(model, quantity, sites, time)
    physical = model.normalisation.physical(anomalies.float().unsqueeze(1), np.array([time]))[0, 0].double()
    expected = []
    for row, column in zip(rows, columns, strict=True):
        at = {channel: float(physical[i, row, column]) for i, channel in enumerate(model.channels)}
        humid = {int(channel[1:]): q for channel, q in at.items() if channel[0] == "q"}
        levels = sorted(humid)
        if name == "wind-speed":
            pairs = [(u, "v" + u[1:]) for u in model.channels if u[0] == "u"]
            expected += [math.hypot(at[u], at[v], 0.1) for u, v in pairs]
        elif name == "log-humidity":
            expected += [math.log(1e-6) + math.asinh(humid[level] / 2e-6) for level in levels]
        else:
            water = sum(50 * (b - a) * (humid[a] + humid[b]) / 9.80665 for a, b in pairwise(levels))
            expected += [math.exp(-water / 15)]
    torch.testing.assert_close(operator(anomalies)[0], torch.tensor(expected).double(), rtol=1e-4, atol=1e-4)
    direction = torch.randn(anomalies.shape, dtype=torch.float64, generator=generator)
    change = (operator(anomalies + 1e-5 * direction) - operator(anomalies - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close(operator.tangent(anomalies, direction), change, rtol=1e-4, atol=1e-6)
