"""The equations tell how the states of a general circulation model change in half a day."""

from pathlib import Path

import pytest
import torch

from analytic_flows import level_names
from genda.physics import PrimitiveEquations
from genda.state import read_state
from genda.verify.tendencies import change_correlation

STATES = Path(__file__).with_name("half_a_day.nc")
"""States of 2006-02-19T12 and 2006-02-20T00 of the nature run of seed 1 (docs/results/nature-run.md), in 16-bit integers."""
NAMES = level_names("zuvtq", (850, 700, 500, 300, 200))


@pytest.fixture(scope="module")
def correlation():
    states = read_state(STATES, NAMES)
    dynamics = PrimitiveEquations(states.grid, NAMES)
    found = change_correlation(dynamics, *states.values, seconds=43200.0)
    return dict(zip(NAMES, found.tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "least"), [("z500", 0.4), ("u500", 0.4), ("v500", 0.4), ("t700", 0.5), ("q700", 0.4), ("u300", 0.4)]
)
def test_tendencies_go_with_half_a_days_change(correlation, name, least):
    # 48 x 96 points of noise would correlate by 0.015
    assert least < correlation[name] < 1


def test_a_change_that_is_the_tendency_correlates_fully_and_turned_round_to_minus_one():
    states = read_state(STATES, NAMES)
    dynamics = PrimitiveEquations(states.grid, NAMES)
    before = states.values[0].double()
    change = dynamics(before.unsqueeze(0))[0]
    for sign in (1.0, -1.0):
        found = change_correlation(dynamics, before, before + sign * change, seconds=1.0)
        torch.testing.assert_close(
            found[NAMES.index("z500")], torch.tensor(sign, dtype=torch.float64), atol=1e-3, rtol=0
        )


def test_what_is_missing_below_the_ground_does_not_count():
    states = read_state(STATES, NAMES)
    torn = states.values.clone()
    torn[:, [i for i, name in enumerate(NAMES) if name.endswith("850")], 20:23, 40:43] = torch.nan
    found = change_correlation(PrimitiveEquations(states.grid, NAMES), *torn, seconds=43200.0)
    whole = change_correlation(PrimitiveEquations(states.grid, NAMES), *states.values, seconds=43200.0)
    tells = torch.isfinite(whole)
    assert torch.equal(torch.isfinite(found), tells)
    torch.testing.assert_close(found[tells], whole[tells], atol=0.05, rtol=0)
