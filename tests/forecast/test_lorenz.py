"""Toy models against what is known about them."""

import pytest
import torch

from genda.forecast.lorenz import Lorenz63, Lorenz96


def test_lorenz63_keeps_its_fixed_points():
    model = Lorenz63()
    c = (model.beta * (model.rho - 1)) ** 0.5
    for sign in (1, -1):
        point = torch.tensor([sign * c, sign * c, model.rho - 1], dtype=torch.float64).view(3, 1, 1)
        torch.testing.assert_close(model.step(point, 0.1), point, rtol=1e-12, atol=1e-12)


def test_a_step_is_of_fourth_order():
    state = torch.tensor([1.509, -1.531, 25.46], dtype=torch.float64).view(3, 1, 1)
    exact = Lorenz63(longest=1e-4).step(state, 0.1)
    errors = [(Lorenz63(longest=h).step(state, 0.1) - exact).abs().max() for h in (0.02, 0.01)]
    assert 14 < float(errors[0] / errors[1]) < 19


def test_lorenz63_shrinks_volumes_at_its_divergence():
    model = Lorenz63()
    state = torch.tensor([1.509, -1.531, 25.46], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model.step(x.view(3, 1, 1), 0.05).flatten(), state)
    expected = -(model.sigma + 1 + model.beta) * 0.05
    assert float(jacobian.det().log()) == pytest.approx(expected, rel=1e-3)


def test_the_advection_of_lorenz96_conserves_energy():
    model = Lorenz96(size=40)
    state = torch.randn(5, 1, 1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    advection = model.tendency(state) + state - model.forcing
    assert float((advection * state).sum(dim=-1).abs().max()) < 1e-12


def test_the_error_of_lorenz96_doubles_in_two_days():
    """0.42 units of time at F = 8 (Lorenz and Emanuel 1998), a leading Lyapunov exponent of about 1.67."""
    model = Lorenz96()
    generator = torch.Generator().manual_seed(1)
    state = model.step(8 + torch.randn(100, 1, 1, 40, dtype=torch.float64, generator=generator), 20.0)
    other = state + 1e-8 * torch.randn(state.shape, dtype=torch.float64, generator=generator)

    def size():
        return (state - other).pow(2).sum(dim=-1).log().mean() / 2

    state, other = model.step(state, 3.0), model.step(other, 3.0)  # onto the leading direction
    first = size()
    state, other = model.step(state, 5.0), model.step(other, 5.0)
    growth = float(size() - first) / 5.0
    assert growth == pytest.approx(1.67, rel=0.06)


def test_members_do_not_interact():
    model = Lorenz96(size=12)
    states = torch.randn(3, 1, 1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together = model.step(states, 0.2)
    torch.testing.assert_close(together[1], model.step(states[1], 0.2), rtol=0, atol=0)
