"""Errors of tendencies against flows whose tendencies are known."""

import pytest
import torch

from analytic_flows import isothermal, level_names, rossby_haurwitz, state
from genda.grid import LatLonGrid
from genda.physics import PrimitiveEquations
from genda.verify.tendencies import equations, tendency_scores

GRID = LatLonGrid.gaussian(32, 64)
NAMES = tuple(level_names("zuvt", (850, 500, 200))) + ("t2m",)


def wave(gain=1.0):
    flow, dry = rossby_haurwitz(GRID), isothermal(260.0)
    return state(NAMES, GRID, z=lambda p: gain * flow["z"] + dry(p), u=flow["u"], v=flow["v"], t=260.0)[0]


def test_a_truth_has_none_and_each_member_its_own():
    truth = wave()
    still = truth.clone()
    still[[i for i, name in enumerate(NAMES) if name[0] in "uvz"]] = 0.0
    errors, sizes = tendency_scores(torch.stack([truth, still]), truth, NAMES, GRID, GRID.area_weights)
    names = equations(NAMES)
    assert names == ("u", "v", "t", "z")
    wind = [names.index(name) for name in "uv"]
    torch.testing.assert_close(errors[0, wind], torch.zeros(2).double())
    torch.testing.assert_close(errors[1, wind], torch.ones(2).double())
    torch.testing.assert_close(sizes[0], torch.ones(4).double())
    torch.testing.assert_close(sizes[1, wind], torch.zeros(2).double())


def test_a_geopotential_out_of_balance_moves_the_wind_by_its_slope():
    """With u and v kept, a tenth more wave in z changes u_t by a tenth of the pressure gradient force."""
    truth, names = wave(), equations(NAMES)
    found, _ = tendency_scores(wave(gain=1.1), truth, NAMES, GRID, GRID.area_weights)
    terms = PrimitiveEquations(GRID, NAMES).terms(truth.unsqueeze(0))
    rows = torch.tensor(GRID.latitude).abs() <= 85.0
    area = torch.as_tensor(GRID.area_weights).view(-1, 1) * rows.view(-1, 1)
    for field in "uv":
        force, whole = (x[0, 1] for x in (terms[field]["pressure gradient"], sum(terms[field].values())))
        expected = 0.01 * float((area * force**2).sum() / (area * whole**2).sum())
        assert float(found[names.index(field)]) == pytest.approx(expected, rel=1e-6)


def test_channels_and_grids_without_tendencies_have_no_score():
    assert equations(("t2m", "msl")) == ()
    assert equations(("x", "y")) == ()
    assert tendency_scores(torch.zeros(1, 32, 64), torch.zeros(1, 32, 64), ("t2m",), GRID, GRID.area_weights) is None
