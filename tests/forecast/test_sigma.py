"""From pressure levels to a model's sigma levels and to its modal state."""

import numpy as np
import pytest

import genda.forecast.nature as nature
from genda.forecast.pressure import SigmaFields, to_pressure_levels
from genda.forecast.sigma import Ground, SigmaChange, to_sigma_levels
from genda.variables import GAS_CONSTANT

SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
LEVELS = [85000.0, 70000.0, 50000.0, 30000.0, 20000.0]
SHAPE = (4, 6)


def columns(surface_pressure, temperature, u, q, surface_geopotential):
    """One instant; what the surface fields show is made as SPEEDY makes them."""
    beyond = np.log(0.99 / SIGMA[-1]) / np.log(SIGMA[-1] / SIGMA[-2])
    phi = surface_geopotential + GAS_CONSTANT * 260.0 * -np.log(SIGMA)[:, None, None]
    t2m = temperature[-1] + beyond * (temperature[-1] - temperature[-2])
    wind = 0.95 * u[-1]
    return SigmaFields(
        SIGMA,
        surface_geopotential,
        surface_pressure[None],
        *(v[None] for v in (phi, temperature, u, -u, q)),
        *(v[None] for v in (t2m, wind, -wind)),
    )


@pytest.mark.parametrize("mountain", [0.0, 2.0e4])
def test_smooth_changes_of_columns_return(mountain):
    """Of a change as smooth as a day's forecast error, 97 % from 300 hPa down, mountains or not."""
    rng = np.random.default_rng(0)
    geopotential = mountain * rng.random(SHAPE)
    pressure = 98500.0 * np.exp(-geopotential / (GAS_CONSTANT * 260.0))
    x = np.log(SIGMA)[:, None, None]
    temperature = 285.0 + 45.0 * x.clip(-1.5) + rng.standard_normal(SHAPE)
    u, q = 10.0 - 12.0 * x, 8e-3 * SIGMA[:, None, None] ** 3 * np.ones(SHAPE)

    def wave(size):
        a, b, c = rng.standard_normal((3, *SHAPE))
        return size * (a + b * np.sin(x) + c * np.cos(1.3 * x))

    dt, du, dq, dp = wave(1.0), wave(2.0), 1e-3 * SIGMA[:, None, None] ** 3 * wave(1.0), 100.0 * rng.random(SHAPE)
    before = columns(pressure, temperature, u, q, geopotential)
    after = columns(pressure + dp, temperature + dt, u + du, q + dq, geopotential)
    shown = [to_pressure_levels(fields, LEVELS) for fields in (before, after)]
    change = {name: (shown[1][name] - shown[0][name])[0] for name in shown[0]}
    found = to_sigma_levels(change, LEVELS, Ground(SIGMA, pressure, temperature[-1], geopotential, 0.95))
    for name, true in (("temperature", dt), ("u", du), ("v", -du), ("q", dq)):
        lost = ((getattr(found, name) - true)[3:] ** 2).sum() / (true[3:] ** 2).sum()
        assert lost < 0.03, name
    expected = np.log1p(dp / pressure)
    assert ((found.log_surface_pressure - expected) ** 2).sum() < 0.02 * (expected**2).sum()


def test_over_the_sea_surface_pressure_follows_that_at_sea_level_alone():
    change = {name: np.ones((5, *SHAPE)) for name in "tuvq"} | {"t2m": np.ones(SHAPE), "u10": np.ones(SHAPE)}
    change |= {"v10": np.ones(SHAPE), "msl": np.full(SHAPE, 250.0)}
    sea = Ground(SIGMA, np.full(SHAPE, 1e5), np.full(SHAPE, 285.0), np.zeros(SHAPE), 0.95)
    found = to_sigma_levels(change, LEVELS, sea)
    np.testing.assert_allclose(np.exp(found.log_surface_pressure), 1.0025, rtol=1e-12)
    # the highest pressure level says nothing of 25 hPa and little of 95 hPa
    assert np.abs(found.u[0]).max() < 0.02
    assert 0.1 < found.u[1].min() <= found.u[1].max() < 0.4


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("jcm", reason="the general circulation model is an optional extra: genda[nature]")
    return nature.NatureModel("t21")


def uniform(model, **given):
    shape = (model.sigma.size, *model.grid.shape)
    zero = {name: np.zeros(shape) for name in ("temperature", "u", "v", "q")}
    return SigmaChange(**(zero | {"log_surface_pressure": np.zeros(model.grid.shape)} | given))


def moved(model, **given):
    """Leaves before and after: vorticity, divergence, temperature, log surface pressure, humidity."""
    start = model.start([3], [np.datetime64("2001-01-01")])
    dynamics = model.dynamics([leaf[0] for leaf in model.leaves(start.dynamics)])
    return model.leaves(dynamics), model.leaves(model.moved(dynamics, uniform(model, **given)))


def test_no_change_leaves_the_bits(model):
    for before, after in zip(*moved(model), strict=True):
        assert (before == after).all()


def test_solid_body_rotation_has_its_vorticity_and_no_divergence(model):
    """u = ω a cos φ has vorticity 2 ω sin φ."""
    omega, radius = 1e-6, 6.371e6
    latitude = np.radians(model.grid.latitude)[:, None] + np.zeros(model.grid.shape)
    before, after = moved(model, u=omega * radius * np.cos(latitude) * np.ones((8, 1, 1)))
    horizontal = model._dycore.coords.horizontal
    vorticity, divergence = (np.asarray(horizontal.to_nodal(after[i] - before[i])) for i in (0, 1))
    expected = 2 * omega * np.sin(np.swapaxes(latitude[::-1], 0, 1))
    np.testing.assert_allclose(vorticity, np.broadcast_to(expected, vorticity.shape), atol=2e-5 * omega)
    assert np.abs(divergence).max() < 2e-5 * omega
    for i in (2, 3, 4):
        assert (before[i] == after[i]).all()


def test_uniform_warming_changes_one_coefficient_of_each_level(model):
    before, after = moved(model, temperature=np.full((8, *model.grid.shape), 1.5))
    change = after[2] - before[2]
    mean = change[:, 0, 0].copy()
    change[:, 0, 0] = 0
    np.testing.assert_allclose(mean, mean[0], rtol=1e-5)
    assert np.abs(change).max() < 1e-4 * mean[0]
    for i in (0, 1, 3, 4):
        assert (before[i] == after[i]).all()
    horizontal = model._dycore.coords.horizontal
    np.testing.assert_allclose(np.asarray(horizontal.to_nodal(after[2] - before[2])), 1.5, rtol=1e-4)
