"""Balanced flows and columns have no residual; noise adds what its variance says."""

import numpy as np
import pytest
import torch

from genda import verify
from genda.grid import EARTH_RADIUS, LatLonGrid
from genda.sphere import SphericalTransform
from genda.variables import GAS_CONSTANT
from genda.verify.balance import LEAST_LATITUDE, ROTATION, residuals

GRID = LatLonGrid.gaussian(32, 64)
POLES = LatLonGrid.equiangular(33, 64)
REGION = LatLonGrid(tuple(np.arange(60.0, 30, -3)), tuple(np.arange(0.0, 40, 3)))
TIMES = np.array(["2001-01-01"], dtype="datetime64[ns]")


def coordinates(grid):
    return torch.meshgrid(
        *(torch.deg2rad(torch.tensor(c, dtype=torch.float64)) for c in (grid.latitude, grid.longitude)), indexing="ij"
    )


def balanced(grid):
    """z, u, v of a solid-body rotation at 20 m/s, z = -a Ω u_0 sin² φ, and a wave of degree 4 and order 3, both geostrophic."""
    lat, lon = coordinates(grid)
    f, wave = 2 * ROTATION * lat.sin(), 2000.0
    z = 5e4 - EARTH_RADIUS * ROTATION * 20 * lat.sin() ** 2 + wave * lat.sin() * lat.cos() ** 3 * (3 * lon).cos()
    slope = lat.cos() ** 4 - 3 * lat.sin() ** 2 * lat.cos() ** 2
    u = 20 * lat.cos() - wave * slope * (3 * lon).cos() / (f * EARTH_RADIUS)
    v = -3 * wave * lat.sin() * lat.cos() ** 2 * (3 * lon).sin() / (f * EARTH_RADIUS)
    return torch.stack([z, u, v]).nan_to_num(posinf=0.0, neginf=0.0)  # the equator row of a grid with poles


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [GRID, POLES])
def test_a_geostrophic_flow_has_no_residual_and_wind_noise_adds_its_mean_square(grid):
    channels, area = ("z500", "u500", "v500"), grid.area_weights
    flow = balanced(grid)
    residual = verify.geostrophic_residual(flow, channels, grid, area)
    assert float(residual) < 1e-12
    noise = normal(2, *grid.shape)
    outside = area * (np.abs(grid.latitude) >= LEAST_LATITUDE)
    found = verify.geostrophic_residual(flow + torch.cat([torch.zeros(1, *grid.shape), noise]), channels, grid, area)
    assert float(found) == pytest.approx(float(verify.area_mean(noise**2, outside).sum()), rel=1e-6)


def test_noise_in_the_geopotential_adds_its_gradient_over_f():
    """Homogeneous noise of degree l and variance s²: E |∇z|² = l (l + 1) s² / a² everywhere, so E |v_g|² = that times <1/f²>."""
    degree, s, members = 20, 3.0, 40
    transform = SphericalTransform(GRID, 32).double()
    coefficients = torch.zeros(members, 32, 32, dtype=torch.complex128)
    coefficients[:, degree, 1 : degree + 1] = torch.view_as_complex(normal(members, degree, 2)) / 2**0.5
    coefficients[:, degree, 0] = normal(members, seed=1)
    noise = s * transform.synthesis(coefficients) * (4 * np.pi / (2 * degree + 1)) ** 0.5
    noisy = balanced(GRID).repeat(members, 1, 1, 1)
    noisy[:, 0] += noise
    found = verify.geostrophic_residual(noisy, ("z500", "u500", "v500"), GRID, GRID.area_weights)
    lat = np.asarray(GRID.latitude)
    f, outside = 2 * ROTATION * np.sin(np.radians(lat)), GRID.area_weights * (np.abs(lat) >= LEAST_LATITUDE)
    expected = degree * (degree + 1) * s**2 / EARTH_RADIUS**2 * (outside / f**2).sum() / outside.sum()
    assert float(found.mean()) == pytest.approx(expected, rel=0.05)


def column(levels, humidity=0.0):
    """z, t, q per level of a column whose virtual temperature falls linearly in ln p, which makes the integral exact."""
    depth = np.log(1000.0 / np.asarray(levels))
    virtual, z = 300 - 30 * depth, GAS_CONSTANT * (300 * depth - 15 * depth**2)
    values = [z, virtual / (1 + 0.608 * humidity), np.full(len(levels), humidity)]
    return torch.as_tensor(np.concatenate(values)).view(-1, 1, 1).expand(-1, *REGION.shape)


@pytest.mark.parametrize("humidity", [0.0, 0.012])
def test_a_hydrostatic_column_has_no_residual_on_any_levels_and_any_grid(humidity):
    levels = (925, 850, 500, 50)
    channels = tuple(f"{name}{level}" for name in "ztq" for level in levels)
    found = verify.hydrostatic_residual(column(levels, humidity), channels, REGION.area_weights)
    np.testing.assert_allclose(found, np.zeros(3), atol=1e-16 * 1e5**2)
    isothermal = torch.cat(
        [GAS_CONSTANT * 250 * torch.log(1000 / torch.tensor([850.0, 300.0])), torch.full((2,), 250.0)]
    )
    fields = isothermal.double().view(-1, 1, 1).expand(-1, *REGION.shape)
    dry = verify.hydrostatic_residual(fields, ("z850", "z300", "t850", "t300"), REGION.area_weights)
    assert float(dry) ** 0.5 < 0.01


def test_noise_in_heights_and_temperatures_adds_its_variance_by_layer():
    """Var = 2 s_z² + (R ln(p_b/p_t) / 2)² · 2 s_t²."""
    levels, s_z, s_t = (850, 700, 500), 30.0, 1.5
    channels = tuple(f"{name}{level}" for name in "zt" for level in levels)
    scale = torch.tensor([s_z] * 3 + [s_t] * 3, dtype=torch.float64).view(-1, 1, 1)
    fields = column(levels)[:6] + scale * normal(400, 6, *REGION.shape)
    found = verify.hydrostatic_residual(fields, channels, REGION.area_weights).mean(dim=0)
    depth = np.log([850 / 700, 700 / 500])
    np.testing.assert_allclose(found, 2 * s_z**2 + 2 * s_t**2 * (GAS_CONSTANT * depth / 2) ** 2, rtol=0.02)


def state(noise, members, seed):
    """z, u, v on two levels and t, q: truth of residual 1 m/s, and members with that much more."""
    channels = ("u850", "z500", "u500", "v500", "z850", "v850", "t850", "t500", "msl")
    z, u, v = balanced(GRID)
    flow = {"z": z, "u": u, "v": v, "t": torch.full(GRID.shape, 270.0), "m": torch.full(GRID.shape, 1e5)}
    truth = torch.stack([flow[name[0]] for name in channels]) + 1.0 * normal(9, *GRID.shape, seed=seed)
    return channels, truth[None], truth[None, None] + noise * normal(1, members, 9, *GRID.shape, seed=seed + 1)


def test_scores_are_ratios_to_the_truth_by_level_and_layer():
    channels, truth, members = state(0.0, 3, seed=2)
    wind = torch.tensor([name[0] in "uv" for name in channels]).view(-1, 1, 1)
    members = members + 2.0 * normal(*members.shape, seed=5) * wind
    rows = verify.field_statistics(members, truth, times=TIMES, channels=channels, grid=GRID)
    smooth = verify.field_statistics(truth, truth, times=TIMES, channels=channels, grid=GRID)
    table = verify.ScoreTable({"same": smooth, "noisy": rows}, "same")
    document = table.to_dict()["rows"]
    assert [document[0]["metrics"]["geostrophic"][level]["mean"] for level in ("850", "500")] == [1.0, 1.0]
    assert document[0]["metrics"]["hydrostatic"]["850-500"]["mean"] == 1.0
    r = rows.values["geostrophic_residual_truth"][0, 0]
    found = [document[1]["metrics"]["geostrophic"][level]["mean"] for level in ("850", "500")]
    np.testing.assert_allclose(found, np.sqrt(1 + 2 * 2.0**2 / r), rtol=0.03)
    assert document[1]["metrics"]["hydrostatic"]["850-500"]["mean"] == pytest.approx(1.0, rel=1e-6)
    assert table.to_markdown(verify.GEOSTROPHIC).splitlines()[0] == "| Ageostrophic wind / truth's [hPa] | 850 | 500 |"


def test_balances_are_left_out_where_channels_grid_or_region_do_not_allow_them():
    channels, truth, _ = state(0.0, 1, seed=2)
    assert set(residuals(truth, channels, GRID, GRID.area_weights)) == {"geostrophic_residual", "hydrostatic_residual"}
    tropics = GRID.area_weights * (np.abs(GRID.latitude) < 15)
    assert set(residuals(truth, channels, GRID, tropics)) == {"hydrostatic_residual"}
    assert set(residuals(truth[:, :1], ("x",), GRID, GRID.area_weights)) == set()
    regional = truth[..., : REGION.shape[0], : REGION.shape[1]]
    assert set(residuals(regional, channels, REGION, REGION.area_weights)) == {"hydrostatic_residual"}
    few = residuals(truth[:, :7], channels[:7], GRID, GRID.area_weights)
    assert set(few) == {"geostrophic_residual"}
    assert few["geostrophic_residual"].shape == (1, 2)
