"""Operators: adjoints, exactness on fields known in closed form, conservation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genda.grid import LatLonGrid
from genda.observations.operators import LinearOperator, Nonlinear, coarse, normalised, points, stack
from genda.variables import EMBEDDED_CHANNELS

GRID = LatLonGrid.gaussian(48, 96)
CHANNELS = ("t850", "t500", "u500", "t2m")


def _fields(function, grid=GRID):
    lat, lon = np.meshgrid(np.radians(grid.latitude), np.radians(grid.longitude), indexing="ij")
    return function(lat, lon)


def _random_points(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(0, 360, count)


def _point_operator(interpolation="bicubic", count=60):
    lat, lon = _random_points(count)
    rng = np.random.default_rng(1)
    variable = rng.choice(["t", "u", "t2m"], count).tolist()
    pressure = np.where(np.array(variable) == "u", 5e4, rng.uniform(5e4, 8.5e4, count))
    matrix = points(GRID, CHANNELS, variable, pressure, lat, lon, interpolation)
    return normalised(matrix, GRID, torch.tensor([2.0, 3.0, 6.0, 2.5]))[0]


def _coarse_operator(method):
    return LinearOperator(coarse(GRID, CHANNELS, GRID.coarsened(4), method), (4, 48, 96))


OPERATORS = {
    "bicubic points": _point_operator,
    "bilinear points": lambda: _point_operator("bilinear"),
    "area average": lambda: _coarse_operator("area"),
    "bicubic grid": lambda: _coarse_operator("bicubic"),
    "stack": lambda: stack([_point_operator(), _coarse_operator("area")]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_and_the_gradient_are_the_transpose(name):
    operator = OPERATORS[name]()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 48, 96, dtype=torch.float64, generator=generator, requires_grad=True)
    y = operator(x)
    v = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    left, right = (y * v).sum(), (x * operator.adjoint(v)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-10)
    (gradient,) = torch.autograd.grad(left, x)
    torch.testing.assert_close(gradient, operator.adjoint(v), rtol=1e-12, atol=1e-12)


def test_the_tangent_of_a_nonlinear_operator_passes_a_taylor_test():
    speed = Nonlinear(lambda y: (y[:, ::2] ** 2 + y[:, 1::2] ** 2 + 1).sqrt(), _point_operator())
    generator = torch.Generator().manual_seed(0)
    x, dx = (torch.randn(2, 4, 48, 96, dtype=torch.float64, generator=generator) for _ in range(2))
    remainders = [(speed(x + h * dx) - speed(x) - h * speed.tangent(x, dx)).norm().item() for h in (1e-2, 1e-3)]
    assert remainders[0] / remainders[1] == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize(("interpolation", "order"), [("bilinear", 2), ("bicubic", 3)])
def test_interpolation_converges_at_its_order(interpolation, order):
    lat, lon = _random_points(400)
    inside = np.abs(lat) < 75
    lat, lon = lat[inside], lon[inside]
    exact = np.cos(np.radians(lat)) * np.sin(3 * np.radians(lon))
    errors = []
    for nlat in (32, 64):
        grid = LatLonGrid.equiangular(nlat, 2 * nlat)
        matrix = points(grid, ["t2m"], ["t2m"] * len(lat), np.full(len(lat), np.nan), lat, lon, interpolation)
        values = matrix @ _fields(lambda a, b: np.cos(a) * np.sin(3 * b), grid).ravel()
        errors.append(np.abs(values - exact).max())
    assert np.log2(errors[0] / errors[1]) > order - 0.4


def test_interpolation_is_smooth_across_the_poles_and_turns_vectors_there():
    """A uniform flow over the pole: x-velocity 1 everywhere is u = -sin(lon), v = -sin(lat) cos(lon)."""
    lon = np.arange(0.0, 360.0, 15.0)
    for pole in (1, -1):
        lat = np.full(lon.size, 89.0 * pole)
        for variable, function in (
            ("u", lambda a, b: -np.sin(b)),
            ("v", lambda a, b: -np.sin(a) * np.cos(b)),
            ("t", lambda a, b: np.cos(a) * np.cos(b)),
        ):
            matrix = points(GRID, [f"{variable}500"], [variable] * lon.size, np.full(lon.size, 5e4), lat, lon)
            exact = function(np.radians(lat), np.radians(lon))
            np.testing.assert_allclose(matrix @ _fields(function).ravel(), exact, atol=0.02)


def test_the_vertical_is_linear_in_log_pressure():
    pressure = np.array([5e4, 6e4, 7.5e4, 8.5e4])
    matrix = points(GRID, ["t850", "t500"], ["t"] * 4, pressure, np.zeros(4), np.zeros(4))
    profile = np.repeat([np.log(8.5e4), np.log(5e4)], 48 * 96)
    np.testing.assert_allclose(matrix @ profile, np.log(pressure), rtol=1e-12)


def test_area_averaging_conserves_the_integral_and_equals_block_means():
    target = GRID.coarsened(4)
    matrix = coarse(GRID, ["t2m"], target)
    field = np.random.default_rng(0).normal(size=GRID.shape)
    averaged = (matrix @ field.ravel()).reshape(target.shape)
    weighted = GRID.area_weights[:, None] * field
    blocks = weighted.reshape(12, 4, 24, 4).sum(axis=(1, 3)) / GRID.area_weights.reshape(12, 4).sum(axis=1)[:, None] / 4
    np.testing.assert_allclose(averaged, blocks, atol=0.12)
    np.testing.assert_allclose(matrix @ np.ones(field.size), 1.0, rtol=1e-12)
    regular = LatLonGrid.equiangular(24, 36)
    onto = (coarse(GRID, ["t2m"], regular) @ field.ravel()).reshape(regular.shape)
    edges = np.sin(np.radians(GRID.row_edges))
    total = ((edges[:-1] - edges[1:])[:, None] * field).sum() / 2 / 96
    assert (regular.area_weights[:, None] * onto).mean() == pytest.approx(total, abs=1e-12)


def test_cost_is_linear_in_observations():
    lat, lon = _random_points(500)
    sizes = [points(GRID, EMBEDDED_CHANNELS, ["z"] * n, np.full(n, 6e4), lat[:n], lon[:n]).nnz for n in (100, 500)]
    assert sizes == [100 * 32, 500 * 32]


@pytest.mark.parametrize(
    ("variable", "pressure", "latitude", "message"),
    [("q", 5e4, 0.0, "'q' is not in the model"), ("t", 1e4, 0.0, "10000 Pa"), ("t", 5e4, 95.0, "95°N")],
)
def test_impossible_observations_are_named(variable, pressure, latitude, message):
    with pytest.raises(ValueError, match=message):
        points(GRID, CHANNELS, [variable], np.array([pressure]), np.array([latitude]), np.array([0.0]))
