"""The two-layer model against linear theory and the invariants of its advection."""

import numpy as np
import pytest
import torch

from genda.forecast.quasi_geostrophic import QuasiGeostrophic


def turbulence(size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, size, size, dtype=torch.float64, generator=generator)


def test_advection_conserves_energy_and_enstrophy():
    model = QuasiGeostrophic(size=32)
    waves = torch.fft.rfft2(turbulence()) * model._kept
    psi = model.streamfunction(waves)
    change = torch.fft.irfft2(model.advection(psi, waves), s=(32, 32))
    q, stream = (torch.fft.irfft2(field, s=(32, 32)) for field in (waves, psi))
    for invariant in (q, stream):
        total = (invariant * change).sum(dim=(-2, -1))
        assert float(total.abs().max()) < 1e-12 * float((invariant * change).abs().sum())


def test_the_inversion_gives_back_the_potential_vorticity():
    model = QuasiGeostrophic(size=32)
    waves = torch.fft.rfft2(turbulence() - turbulence().mean(dim=(-2, -1), keepdim=True))
    psi = model.streamfunction(waves)
    kx, ky = model._wavenumbers
    coupling = model.deformation**2 / 2 * (psi.flip(-3) - psi)
    torch.testing.assert_close(-(kx**2 + ky**2) * psi + coupling, waves, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("k", [3, 5, 7])
def test_a_small_wave_grows_as_the_linear_theory_says(k):
    model = QuasiGeostrophic(size=32, drag=0.0, filtered=False, longest=2e-3)
    kd2, u, beta = model.deformation**2, model.shear, model.beta
    # q = P ψ for a wave of wavenumber k along x, and i k c q = i k (U q + Q ψ)
    p = np.array([[-(k**2) - kd2 / 2, kd2 / 2], [kd2 / 2, -(k**2) - kd2 / 2]])
    speeds, modes = np.linalg.eig(np.diag([u, -u]) + np.diag([beta + kd2 * u, beta - kd2 * u]) @ np.linalg.inv(p))
    fastest = int(np.argmax(speeds.imag))
    x = torch.arange(32, dtype=torch.float64) * 2 * np.pi / 32
    wave = torch.exp(1j * k * x)
    state = torch.stack([(complex(a) * wave).real.expand(32, 32) for a in modes[:, fastest]]) * 1e-6
    time = 0.5
    found = model.step(state, time)
    expected = torch.stack(
        [(complex(a) * wave * np.exp(-1j * k * speeds[fastest] * time)).real.expand(32, 32) for a in modes[:, fastest]]
    )
    torch.testing.assert_close(found, expected * 1e-6, rtol=0, atol=1e-6 * 1e-5)
    if k == 5:
        assert speeds[fastest].imag > 0.01  # baroclinically unstable, so that growth itself is tested


def test_turbulence_settles_and_two_states_part():
    model = QuasiGeostrophic(size=32, longest=0.02)
    state = model.step(turbulence() * 0.1, 12.0)
    later = model.step(state, 5.0)
    assert torch.isfinite(later).all()
    assert 0.2 < float(later.std() / state.std()) < 5
    nearby = model.step(state * (1 + 1e-6), 5.0)
    assert float((nearby - later).std() / later.std()) > 1.5e-6


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="found size 33"):
        QuasiGeostrophic(size=33)
