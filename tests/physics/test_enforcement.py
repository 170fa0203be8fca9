"""What channels allow, where equations are asked to hold, and states with levels below the ground."""

import numpy as np
import pytest
import torch

from analytic_flows import level_names, rms, rossby_haurwitz, state
from genda.grid import LatLonGrid
from genda.physics import Differentiation, Enforcement, PrimitiveEquations
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS

GRID = LatLonGrid.gaussian(32, 64)
POLES = LatLonGrid.equiangular(33, 64)
NAMES = level_names("zuvtq", EMBEDDED_LEVELS)


def normal(names, grid):
    noise = torch.randn(2, len(names), *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return state(names, grid, t=260.0) + noise


def test_the_report_names_levels_and_what_is_lacking():
    names = ["u500", "v500", "u850", "t850", "v850", "u200", "v200", "z500", "t500", "t200", "msl"]
    report = {equation.field: str(equation) for equation in PrimitiveEquations(GRID, names).report}
    assert report == {
        "u": "u: left out, found u on 850, 500, 200; v on 850, 500, 200; z on 500; expected at least 3 levels in common",
        "v": "v: left out, found u on 850, 500, 200; v on 850, 500, 200; z on 500; expected at least 3 levels in common",
        "t": "t: on 850, 500, 200 hPa, of dry air on 850, 500, 200 (no q)",
        "q": "q: left out, found u on 850, 500, 200; v on 850, 500, 200; q on none; expected at least 3 levels in common",
        "z": "z: left out, found u on 850, 500, 200; v on 850, 500, 200; t on 850, 500, 200; z on 500; "
        "expected at least 3 levels in common",
    }


@pytest.mark.parametrize("names", [["t2m", "msl"], ["z500", "t850"], level_names("zt", (850, 500, 200))])
def test_states_without_wind_have_no_equations(names):
    equations, x = PrimitiveEquations(GRID, names), normal(names, GRID)
    assert not any(equation.levels for equation in equations.report)
    with pytest.raises(ValueError, match="found no equation that these channels allow \\(u: left out, found u on none"):
        equations(x)
    assert not equations.enforced(x).any()
    with pytest.raises(ValueError, match="found u and v on 0 common levels, expected at least 3"):
        equations.vertical_velocity(x)


def test_an_equation_left_out_leaves_the_others_as_they_are():
    x = normal(NAMES, GRID)
    whole = PrimitiveEquations(GRID, NAMES)(x)
    kept = [i for i, name in enumerate(NAMES) if name[0] in "uvt"]
    names = [NAMES[i] for i in kept]
    x[:, [i for i, name in enumerate(NAMES) if name[0] == "q"]] = 0  # air without humidity is taken as dry
    found = PrimitiveEquations(GRID, names)(x[:, kept])
    winds = [i for i, name in enumerate(names) if name[0] in "uv"]
    assert float(found[:, winds].abs().max()) == 0
    temperatures = [i for i, name in enumerate(names) if name[0] == "t"]
    expected = PrimitiveEquations(GRID, NAMES)(x)[:, [kept[i] for i in temperatures]]
    torch.testing.assert_close(found[:, temperatures], expected, rtol=1e-10, atol=1e-18)
    assert not torch.allclose(whole[:, [kept[i] for i in temperatures]], expected, rtol=1e-10, atol=1e-18)


def test_fields_may_lack_levels_that_others_have():
    """Without z at 850 hPa the wind's equations lack that level; without q at 200 hPa the air there is dry."""
    x, lacking = normal(NAMES, GRID), {"z850", "q200"}
    kept = [i for i, name in enumerate(NAMES) if name not in lacking]
    equations = PrimitiveEquations(GRID, [NAMES[i] for i in kept])
    assert str(equations.report[2]) == "t: on 850, 700, 500, 300, 200 hPa, of dry air on 200 (no q)"
    levels = {"u": (700, 500, 300, 200), "v": (700, 500, 300, 200), "t": EMBEDDED_LEVELS}
    assert equations.levels == levels | {"q": (850, 700, 500, 300), "z": (700, 500, 300, 200)}
    x[:, NAMES.index("q200")] = 0
    found, whole = equations(x[:, kept]), PrimitiveEquations(GRID, NAMES)(x)[:, kept]
    same = [i for i, name in enumerate(equations.names) if name[0] == "t" or name in ("u500", "u300", "v200", "q700")]
    torch.testing.assert_close(found[:, same], whole[:, same], rtol=1e-10, atol=1e-18)


def test_levels_may_come_in_any_order():
    x, order = normal(NAMES, GRID), np.random.default_rng(0).permutation(len(NAMES)).tolist()
    shuffled = PrimitiveEquations(GRID, [NAMES[i] for i in order])
    torch.testing.assert_close(
        shuffled(x[:, order]), PrimitiveEquations(GRID, NAMES)(x)[:, order], rtol=1e-10, atol=1e-18
    )


def test_equations_are_enforced_inside_the_column_and_away_from_the_poles():
    x = normal(EMBEDDED_CHANNELS, POLES)
    mask = PrimitiveEquations(POLES, EMBEDDED_CHANNELS).enforced(x)
    assert mask.shape == x.shape
    for i, name in enumerate(EMBEDDED_CHANNELS):
        inside = name[0] in "zuvtq" and name[1:] in ("700", "500", "300")
        expected = torch.tensor(POLES.latitude).abs() <= 85 if inside else torch.zeros(33, dtype=torch.bool)
        assert torch.equal(mask[0, i], expected.view(-1, 1).expand(POLES.shape)), name
    everywhere = PrimitiveEquations(POLES, NAMES, enforcement=Enforcement(latitude=90, interior=False))
    assert torch.equal(everywhere.enforced(x[:, :25])[0, 0, :, 0], torch.tensor(POLES.latitude).abs() < 89.9)


def below_ground(settings):
    """A Rossby-Haurwitz wave alike at all levels, whole and with NaN at the two lowest over a plateau."""
    wave = rossby_haurwitz(GRID)
    x = state(NAMES, GRID, z=wave["z"], u=wave["u"], v=wave["v"], t=260.0, q=1e-3)
    plateau = torch.zeros(GRID.shape, dtype=torch.bool)
    plateau[9:13, 20:27] = True
    low = torch.tensor([name[1:] in ("850", "700") for name in NAMES]).view(-1, 1, 1)
    equations = PrimitiveEquations(GRID, NAMES, differentiation=Differentiation(meridional=settings), closure="free")
    return equations, x, torch.where(plateau & low, torch.nan, x)


@pytest.mark.parametrize("settings", ["differences", "harmonics"])
def test_values_below_the_ground_cost_only_what_is_near(settings):
    equations, x, torn = below_ground(settings)
    whole, found, mask = equations(x), equations(torn), equations.enforced(torn)
    assert torch.isfinite(found).all()
    for name in ("u700", "u500", "u300", "z300"):
        i = NAMES.index(name)
        near = torch.zeros(GRID.shape, dtype=torch.bool)
        if name != "u300":  # more than a level away; z is an integral from the ground
            near[7:15, 18:29] = True
        assert torch.equal(mask[0, i], ~near & (torch.tensor(GRID.latitude).abs() <= 85).view(-1, 1))
    i = NAMES.index("u700")
    error, size = (found - whole)[0, i], whole[0, i]
    assert rms(torch.where(mask[0, i], error, 0.0), GRID) < 0.1 * rms(size, GRID)
    torch.testing.assert_close(found[0, NAMES.index("u200")], whole[0, NAMES.index("u200")], rtol=1e-6, atol=1e-12)


def test_gradients_past_the_ground_are_finite_and_none_reaches_below_it():
    equations, _, torn = below_ground("differences")
    torn.requires_grad_()
    (equations(torn) * equations.enforced(torn)).square().sum().backward()
    assert torch.isfinite(torn.grad).all()
    below = torn.detach().isnan()
    assert float(torn.grad[below].abs().max()) == 0
    assert float(torn.grad[~below].abs().max()) > 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["t200", "t500"])
def test_values_missing_above_the_ground_are_refused(value, name):
    x = normal(NAMES, GRID)
    x[1, NAMES.index(name), 3, 4] = value
    with pytest.raises(ValueError, match="t: found values that are not finite, expected none but NaN below the ground"):
        PrimitiveEquations(GRID, NAMES)(x)


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["u500", "u500"], {}, "channels named more than once: u500"),
        (["w500"], {}, "unknown channel 'w500'"),
        (NAMES, {"closure": "none"}, "closure: found 'none', expected 'free' or 'rigid'"),
        (NAMES, {"surface_pressure": 8e4}, "levels: found 85000, .* expected falling pressures"),
    ],
)
def test_settings_that_make_no_equations_are_refused(names, settings, message):
    with pytest.raises(ValueError, match=message):
        PrimitiveEquations(GRID, names, **settings)


def test_enforcement_out_of_range_is_refused():
    with pytest.raises(ValueError, match="latitude: found 0"):
        Enforcement(latitude=0.0)


def test_states_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"state: found shape \(2, 25, 33, 64\), expected \(batch, 25, 32, 64\)"):
        PrimitiveEquations(GRID, NAMES)(normal(NAMES, POLES))
