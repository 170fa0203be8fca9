"""Residuals vanish for flows that satisfy the equations, and have the size of what is added to them."""

import math
from copy import deepcopy

import pytest
import torch

from analytic_flows import OMEGA, R_D, A, angles, isothermal, level_names, rossby_haurwitz, state
from genda.grid import LatLonGrid
from genda.physics import BalanceResidual, PrimitiveEquations, ResidualNorm, TendencyResidual, TwoTimeResidual
from genda.physics.residuals import mean_squares

GRID = LatLonGrid.gaussian(48, 96)
NAMES = level_names("zuvt", (850, 500, 200))
DYNAMICS = PrimitiveEquations(GRID, NAMES)
AREA = torch.as_tensor(GRID.area_weights)


def turned_wave(seconds):
    """The Rossby-Haurwitz wave after a time: it turns eastward without a change of shape."""
    wave, dry = rossby_haurwitz(GRID), isothermal(260.0)
    turn = seconds * wave["rate"]
    waves = torch.arange(49, dtype=torch.float64)

    def rolled(x):
        return torch.fft.irfft(torch.fft.rfft(x) * torch.exp(-1j * waves * turn), n=96)

    return state(NAMES, GRID, z=lambda p: rolled(wave["z"]) + dry(p), u=rolled(wave["u"]), v=rolled(wave["v"]), t=260.0)


def balanced_jet(shear):
    """Solid rotation u = U(p) c, U growing by ``shear`` per unit of -ln p, with geopotential and temperature in balance.

    f u + u² tan φ / a = -Φ_φ / a and hydrostatics give Φ = Φ_0(p) - (a Ω U + U²/2) s², T = T_0 - (a Ω + U) shear s² / R_d with
    U² small; the geostrophic part alone is Φ = -a Ω U s².
    """
    s, c = (f(angles(GRID)[0]) for f in (torch.sin, torch.cos))
    speed = lambda p: 10.0 + shear * math.log(100000.0 / p)  # noqa: E731
    dry = isothermal(260.0)
    return state(
        NAMES, GRID,
        z=lambda p: dry(p) - A * OMEGA * speed(p) * s**2, u=lambda p: speed(p) * c,
        t=260.0 - A * OMEGA * shear * s**2 / R_D,
    )  # fmt: skip


def squares(residual, x, other):
    values, where = residual(x, other)
    return mean_squares(values, where, AREA)[0]


def test_a_wave_that_turns_satisfies_the_equations_between_two_times():
    names = [i for i, name in enumerate(NAMES) if name[0] in "uv"]
    residual = TwoTimeResidual(DYNAMICS, seconds=60.0)
    left = squares(residual, turned_wave(30.0), turned_wave(-30.0))[names]
    tendency = mean_squares(*TendencyResidual(DYNAMICS).of_truth(turned_wave(0.0), turned_wave(0.0)), AREA)[0, names]
    counted = tendency > 0
    assert counted.sum() == 2  # the interior level of both components
    assert (left[counted] / tendency[counted]).max() < 1e-6


@pytest.mark.parametrize(
    "residual", [TendencyResidual(DYNAMICS), TwoTimeResidual(DYNAMICS, 60.0), BalanceResidual(DYNAMICS)]
)
def test_a_norm_moves_to_a_device_with_its_equations(residual):
    norm = ResidualNorm(deepcopy(residual), AREA, torch.ones(len(residual.equations))).to("meta")
    assert {b.device.type for b in norm.buffers()} == {"meta"}
    where = norm.dynamics.derivatives.eastward.device, norm.residual.dynamics.rows.device
    assert {device.type for device in where} == {"meta"}
    if isinstance(residual, BalanceResidual):
        assert norm.residual._rows().device.type == "meta"


def test_balances_refuse_what_the_equations_refuse():
    torn = balanced_jet(shear=8.0)
    torn[0, NAMES.index("t200"), 3, 4] = math.inf
    with pytest.raises(ValueError, match="t: found values that are not finite"):
        BalanceResidual(DYNAMICS)(torn, torn)


def test_a_thermal_wind_is_in_balance_and_a_hot_spot_is_not():
    residual = BalanceResidual(DYNAMICS)
    jet = balanced_jet(shear=8.0)
    left = dict(zip(residual.equations, squares(residual, jet, jet).tolist(), strict=True))
    moving = 2 * OMEGA * 8.0
    assert left["geostrophic"] < (1e-6 * moving) ** 2
    assert left["thermal wind"] < (1e-6 * moving) ** 2
    assert left["hydrostatic"] < 1e-12
    assert left["continuity"] < 1e-12
    warm = jet.clone()
    warm[:, NAMES.index("t500")] += 1.0  # alike everywhere: thickness is wrong, the thermal wind is not
    left = dict(zip(residual.equations, squares(residual, warm, warm).tolist(), strict=True))
    depth = math.log(500 / 200)
    assert left["hydrostatic"] == pytest.approx((0.5 * R_D * depth) ** 2, rel=1e-6)
    assert left["thermal wind"] < (1e-6 * moving) ** 2


def test_tendencies_of_the_truth_leave_nothing_and_scales_are_those_of_truths():
    truth = turned_wave(0.0)
    residual = TendencyResidual(DYNAMICS)
    scale = mean_squares(*residual.of_truth(truth, truth), AREA)[0].sqrt()
    moving = torch.tensor([name[0] != "t" for name in NAMES])
    assert (scale[~moving] < 1e-9).all()  # nothing warms in the wave
    norm = ResidualNorm(residual, AREA, scale * moving)
    assert set(norm(truth, truth)) == {"z", "u", "v"}
    assert all(float(value) == 0 for value in norm(truth, truth).values())
    resting = truth.clone()
    resting[:, [i for i, name in enumerate(NAMES) if name[0] in "uv"]] = 0.0
    resting[:, [i for i, name in enumerate(NAMES) if name[0] == "z"]] = 0.0
    for value in norm(resting, truth).values():  # no tendency where the truth has one: the truth's own mean square
        assert float(value) == pytest.approx(1.0, rel=1e-6)


def test_air_below_the_ground_leaves_the_rest_in_balance():
    residual = BalanceResidual(DYNAMICS)
    jet = balanced_jet(shear=8.0)
    jet[:, NAMES.index("t850"), 20:24, 30:36] = torch.nan
    jet[:, NAMES.index("u850"), 20:24, 30:36] = torch.nan
    values, where = residual(jet, jet)
    assert torch.isfinite(values).all()
    assert not where[..., 20:24, 30:36].any()
    left = dict(zip(residual.equations, mean_squares(values, where, AREA)[0].tolist(), strict=True))
    moving = 2 * OMEGA * 8.0
    for name in ("geostrophic", "thermal wind"):  # spectral derivatives ring a little beyond what is left out
        assert left[name] < (0.02 * moving) ** 2


def test_gradients_of_every_form_are_those_of_finite_differences():
    grid = LatLonGrid.gaussian(8, 16)
    dynamics = PrimitiveEquations(grid, NAMES)
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([{"z": 500.0, "t": 5.0}.get(name[0], 8.0) for name in NAMES]).double().view(-1, 1, 1)
    mean = torch.tensor([{"z": 3e4, "t": 250.0}.get(name[0], 0.0) for name in NAMES]).double().view(-1, 1, 1)

    def draw():
        return mean + size * torch.randn(1, len(NAMES), 8, 16, generator=generator, dtype=torch.float64)

    area, other = torch.as_tensor(grid.area_weights), draw()
    for residual in (TendencyResidual(dynamics), TwoTimeResidual(dynamics, 3600.0), BalanceResidual(dynamics)):
        scale = mean_squares(*residual.of_truth(draw(), other), area)[0].sqrt()
        norm = ResidualNorm(residual, area, scale)
        x, direction = draw().requires_grad_(), size * torch.randn(other.shape, generator=generator).double()
        value = torch.stack(list(norm(x, other).values())).sum()
        (slope,) = torch.autograd.grad(value, x)
        step = 1e-4
        ahead, behind = (
            torch.stack(list(norm(x.detach() + s * step * direction, other).values())).sum() for s in (1, -1)
        )
        assert float((slope * direction).sum()) == pytest.approx(float((ahead - behind) / (2 * step)), rel=1e-5)


def test_channels_without_any_balance_are_refused():
    with pytest.raises(ValueError, match="found none of the balances' fields"):
        BalanceResidual(PrimitiveEquations(GRID, ["t2m", "msl"]))
