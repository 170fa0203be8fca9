"""Spectra against Parseval's identity and single harmonics; SpecDiv against a NumPy reference written from its definition."""

import numpy as np
import pytest
import torch
from scipy.special import lpmv

from genda import verify
from genda.grid import LatLonGrid

GRID = LatLonGrid.gaussian(24, 48)


def coordinates(grid: LatLonGrid) -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(np.radians(grid.latitude), np.radians(grid.longitude), indexing="ij")


def harmonic(degree: int, order: int, grid: LatLonGrid = GRID) -> torch.Tensor:
    lat, lon = coordinates(grid)
    return torch.as_tensor(lpmv(order, degree, np.sin(lat)) * np.cos(order * lon))


def area_mean(x: torch.Tensor, grid: LatLonGrid = GRID) -> float:
    return float(verify.area_mean(x, grid.area_weights))


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (5, 0), (5, 3), (17, 17)])
def test_a_single_harmonic_lands_in_its_own_wavenumbers_with_its_mean_square(degree: int, order: int) -> None:
    x = harmonic(degree, order)
    for spectrum, wavenumber in ((verify.spherical_power(x, GRID), degree), (verify.zonal_power(x, GRID), order)):
        expected = np.zeros(spectrum.shape[-1])
        expected[wavenumber] = area_mean(x**2)
        np.testing.assert_allclose(spectrum, expected, atol=1e-6 * expected.max())


def test_zonal_spectrum_sums_to_the_mean_square_on_any_periodic_grid() -> None:
    for grid in (GRID, LatLonGrid.equiangular(13, 25), LatLonGrid.equiangular(12, 24)):
        x = torch.randn(2, *grid.shape, generator=torch.Generator().manual_seed(1))
        np.testing.assert_allclose(
            verify.zonal_power(x, grid).sum(dim=-1), verify.area_mean(x.double() ** 2, grid.area_weights), rtol=1e-12
        )
    with pytest.raises(ValueError, match="expected a full circle"):
        verify.zonal_power(x[..., :12], LatLonGrid(grid.latitude, grid.longitude[:12]))


def streamfunction_wind(degree: int, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """u = -∂ψ/∂φ, v = (1/cos φ) ∂ψ/∂λ of ψ = P_l^m(sin φ) cos mλ on the unit sphere."""
    lat, lon = coordinates(GRID)
    h = 1e-6
    derivative = (lpmv(order, degree, np.sin(lat + h)) - lpmv(order, degree, np.sin(lat - h))) / (2 * h)
    u = -derivative * np.cos(order * lon)
    v = -order * lpmv(order, degree, np.sin(lat)) * np.sin(order * lon) / np.cos(lat)
    return torch.as_tensor(u), torch.as_tensor(v)


@pytest.mark.parametrize(("degree", "order"), [(1, 0), (4, 1), (9, 6)])
def test_rotational_wind_has_its_kinetic_energy_in_the_degree_of_its_streamfunction(degree: int, order: int) -> None:
    u, v = streamfunction_wind(degree, order)
    energy = area_mean(0.5 * (u**2 + v**2))
    psi = area_mean(harmonic(degree, order) ** 2)
    assert energy == pytest.approx(0.5 * degree * (degree + 1) * psi, rel=1e-6)  # <|∇ψ|²> = l(l+1) <ψ²>
    spectrum = verify.kinetic_energy_spectrum(u, v, GRID)
    expected = np.zeros(len(spectrum))
    expected[degree] = energy
    np.testing.assert_allclose(spectrum, expected, atol=1e-5 * energy)


def test_kinetic_energy_spectra_sum_to_the_kinetic_energy() -> None:
    waves = [streamfunction_wind(degree, order) for degree, order in ((2, 1), (7, 0), (12, 5))]
    lat, lon = coordinates(GRID)
    u = sum(w[0] for w in waves) + torch.as_tensor(np.cos(lat) * np.cos(2 * lon) * 30)  # a divergent part
    v = sum(w[1] for w in waves) + torch.as_tensor(np.cos(lat) * np.sin(lat) * np.sin(lon) * 20)
    energy = area_mean(0.5 * (u**2 + v**2))
    assert float(verify.zonal_kinetic_energy_spectrum(u, v, GRID).sum()) == pytest.approx(energy, rel=1e-12)
    assert float(verify.kinetic_energy_spectrum(u, v, GRID).sum()) == pytest.approx(energy, rel=2e-3)


def reference_chaosbench(forecast: np.ndarray, truth: np.ndarray, percentile: float = 0.9) -> float:
    """One channel, written from ChaosBench's definition with NumPy's own histogram."""
    nlat, nlon = truth.shape[1:]
    ky, kx = np.meshgrid(np.fft.fftfreq(nlat) * nlat, np.fft.fftfreq(nlon) * nlon, indexing="ij")
    k = np.sqrt(kx**2 + ky**2).ravel()
    edges = np.linspace(0.5, k.max(), len(np.arange(0.5, k.max(), 1)) + 1)
    count, _ = np.histogram(k, edges)
    spectra = []
    for fields in (forecast, truth):
        power = np.abs(np.fft.fft2(fields.mean(axis=0))) ** 2
        binned = np.histogram(k, edges, weights=power.ravel())[0] / count
        top = binned[int(percentile * len(binned)) :]
        spectra.append(top / top.sum())
    return float(np.sum(spectra[1] * np.log(np.clip(spectra[1] / spectra[0], 1e-9, None))))


def test_batch_specdiv_matches_the_reference_and_chunks_like_the_whole() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(6, 2, *GRID.shape, generator=generator, dtype=torch.float64)
    forecast = truth + torch.randn(6, 2, *GRID.shape, generator=generator, dtype=torch.float64).cumsum(dim=-1)
    whole = verify.BatchSpectralDivergence.of(forecast, truth)
    expected = [reference_chaosbench(forecast[:, c].numpy(), truth[:, c].numpy()) for c in range(2)]
    np.testing.assert_allclose(whole.value(), expected, rtol=1e-9)
    parts = verify.BatchSpectralDivergence.of(forecast[:2], truth[:2])
    parts = parts.merge(verify.BatchSpectralDivergence.of(forecast[2:], truth[2:]))
    np.testing.assert_allclose(parts.value(), whole.value(), rtol=1e-9)
    np.testing.assert_allclose(verify.BatchSpectralDivergence.of(truth, truth).value(), 0, atol=1e-12)


def test_sample_specdiv_is_zero_for_equal_shapes_and_sees_smoothing() -> None:
    truth = torch.randn(3, *GRID.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    smooth = truth + torch.roll(truth, 1, dims=-1) + torch.roll(truth, -1, dims=-1)
    same = verify.sample_spectral_divergence(2 * truth, truth, GRID, min_degree=5)
    np.testing.assert_allclose(same, 0, atol=1e-12)
    assert (verify.sample_spectral_divergence(smooth, truth, GRID, min_degree=5) > 1e-3).all()
    with pytest.raises(ValueError, match="min_degree: found 15"):
        verify.sample_spectral_divergence(truth, truth, GRID, min_degree=15)


def test_sample_specdiv_looks_at_its_degrees_only() -> None:
    truth = harmonic(6, 2) + harmonic(8, 3)
    np.testing.assert_allclose(
        verify.sample_spectral_divergence(truth + 1000 * harmonic(2, 0), truth, GRID, min_degree=6), 0, atol=1e-9
    )


def test_specdiv_of_anomalies_counts_large_scales_and_not_the_mean_state() -> None:
    options = {
        "times": np.array(["2001-01-01"], dtype="datetime64[ns]"),
        "channels": ("z500",),
        "grid": GRID,
        "min_degree": 6,
    }
    climate = 1000 * harmonic(2, 0)[None, None]
    truth = climate + (harmonic(3, 1) + harmonic(8, 3))[None]
    halved = climate + (0.5**0.5 * harmonic(3, 1) + harmonic(8, 3))[None]
    found = verify.field_statistics(halved, truth, climate=climate, **options).values
    shares = np.array([verify.spectra.spherical_power(f, GRID, 9).sum() for f in (harmonic(3, 1), harmonic(8, 3))])
    s, s_hat = shares / shares.sum(), shares * [0.5, 1] / (shares * [0.5, 1]).sum()
    np.testing.assert_allclose(found["specdiv_anomaly"], np.sum(s * np.log(s / s_hat)), rtol=1e-6)
    np.testing.assert_allclose(found["specdiv"], 0, atol=1e-9)
    nothing = verify.field_statistics(climate.clone(), truth, climate=climate, **options).values
    assert "specdiv_anomaly" not in nothing


def test_bands_of_kinetic_energy_are_sums_of_the_spectrum() -> None:
    u, v = (torch.randn(2, *GRID.shape, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    bands, spectrum = verify.kinetic_energy_bands(u, v, GRID), verify.kinetic_energy_spectrum(u, v, GRID)
    torch.testing.assert_close(bands.sum(dim=-1), spectrum[..., 1:].sum(dim=-1))
    torch.testing.assert_close(bands[..., 1], spectrum[..., 8:16].sum(dim=-1))


def test_half_the_wind_has_a_quarter_of_the_kinetic_energy() -> None:
    channels = ("z500", "u500", "v500")
    truth = torch.randn(1, 3, *GRID.shape, generator=torch.Generator().manual_seed(2))
    times = np.array(["2001-01-01"], dtype="datetime64[ns]")
    found = verify.field_statistics(0.5 * truth, truth, times=times, channels=channels, grid=GRID, min_degree=None)
    np.testing.assert_allclose(verify.estimate(found, verify.KINETIC_ENERGY).mean, 0.25, rtol=1e-6)
