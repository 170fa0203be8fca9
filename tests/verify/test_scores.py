"""Errors and ensemble scores against the ``scores`` package, closed forms and calibrated synthetic ensembles."""

import math

import numpy as np
import pytest
import scores as oracle
import torch
import xarray as xr

from genda import verify
from genda.grid import LatLonGrid

GRID = LatLonGrid.gaussian(8, 16)


def fields(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, *GRID.shape, generator=torch.Generator().manual_seed(seed))


def as_xarray(x: torch.Tensor, *leading: str) -> xr.DataArray:
    return xr.DataArray(x.double().numpy(), dims=(*leading, "channel", "lat", "lon"))


def test_errors_match_the_scores_package() -> None:
    x, y = fields(3, seed=1), fields(3, seed=2)
    weights = xr.DataArray(GRID.area_weights, dims="lat")
    options = {"preserve_dims": ["channel"], "weights": weights}
    pairs = [
        (verify.rmse, oracle.continuous.rmse),
        (verify.mse, oracle.continuous.mse),
        (verify.mae, oracle.continuous.mae),
        (verify.bias, oracle.continuous.additive_bias),
    ]
    for ours, theirs in pairs:
        expected = theirs(as_xarray(x), as_xarray(y), **options).values
        np.testing.assert_allclose(ours(x, y, GRID.area_weights), expected, rtol=1e-12)


def test_fair_crps_matches_the_scores_package() -> None:
    members, y = fields(2, 7, 3, seed=3), fields(2, 3, seed=4)
    expected = oracle.probability.crps_for_ensemble(
        as_xarray(members, "time", "member"), as_xarray(y, "time"), "member", method="fair", preserve_dims="all"
    )
    np.testing.assert_allclose(verify.fair_crps(members, y), expected.values, rtol=1e-10, atol=1e-12)


def test_fair_crps_of_gaussian_draws_is_the_closed_form_for_every_ensemble_size() -> None:
    """CRPS(N(0, 1), y) = y (2Φ(y) - 1) + 2φ(y) - 1/√π, without the bias of order 1/N of the plain estimator."""
    y = torch.tensor(0.7)
    cdf, pdf = 0.5 * (1 + math.erf(0.7 / math.sqrt(2))), math.exp(-0.245) / math.sqrt(2 * math.pi)
    expected = 0.7 * (2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi)
    for n, draws in ((2, 400_000), (10, 100_000)):
        members = torch.randn(n, 1, 1, draws, generator=torch.Generator().manual_seed(n))
        estimate = verify.fair_crps(members, y.expand(1, 1, draws)).mean()
        assert abs(float(estimate) - expected) < 4e-3


@pytest.mark.parametrize("n", [2, 5, 40])
def test_spread_equals_skill_for_a_calibrated_ensemble_of_any_size(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    members = torch.randn(n, 2, 200, 200, generator=generator) * 3 + 5
    truth = torch.randn(2, 200, 200, generator=generator) * 3 + 5
    spread = verify.squared_spread(members).mean(dim=(-2, -1)).numpy()
    error = ((members.double().mean(dim=0) - truth) ** 2).mean(dim=(-2, -1)).numpy()
    np.testing.assert_allclose(verify.spread_skill_ratio(spread, error), 1.0, atol=0.02)


def test_rank_histogram_is_flat_for_a_calibrated_ensemble_and_shares_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    members, truth = (torch.randn(*s, 100, 100, generator=generator) for s in ((9, 1), (1,)))
    ones = np.ones(100)
    np.testing.assert_allclose(verify.rank_histogram(members, truth, ones)[0], 0.1, atol=0.015)
    zero = torch.zeros(4, 1, 100, 100)
    np.testing.assert_allclose(verify.rank_histogram(zero, zero[0], ones)[0], 0.2, atol=1e-12)
    np.testing.assert_allclose(verify.rank_histogram(zero, zero[0] + 1, ones)[0], [0, 0, 0, 0, 1], atol=1e-12)


def test_a_map_of_weights_scores_a_region_only() -> None:
    x, y = fields(1, seed=5), fields(1, seed=6)
    north = np.zeros(GRID.shape)
    north[:4] = GRID.area_weights[:4, None]
    changed = y.clone()
    changed[:, 4:] += 100
    assert torch.equal(verify.mse(x, y, north), verify.mse(x, changed, north))


def test_bad_weights_and_shapes_are_refused_by_name() -> None:
    x = fields(1)
    with pytest.raises(ValueError, match=r"weights: found shape \(5,"):
        verify.mse(x, x, np.ones(5))
    with pytest.raises(ValueError, match="weights: found negative"):
        verify.mse(x, x, -GRID.area_weights)
    with pytest.raises(ValueError, match="forecast: found"):
        verify.mse(x[..., :4], x, GRID.area_weights)
    with pytest.raises(ValueError, match="members: found shape"):
        verify.fair_crps(x[None], x)


def test_the_energy_score_is_what_two_loops_over_the_members_compute():
    members, y, std = fields(4, 2, seed=7), fields(2, seed=8), np.array([2.0, 0.5])

    def norm(difference):
        return float(((difference.double() / torch.as_tensor(std)[:, None, None]) ** 2 * weight).sum().div(2).sqrt())

    weight = torch.as_tensor(GRID.area_weights)[:, None] / (GRID.shape[0] * GRID.shape[1])
    pairs = sum(norm(a - b) for a in members for b in members) / (4 * 3)
    expected = sum(norm(a - y) for a in members) / 4 - pairs / 2
    assert float(verify.energy_score(members, y, GRID.area_weights, std)) == pytest.approx(expected, rel=1e-6)


def test_the_energy_score_of_one_number_is_the_crps_and_prefers_the_right_correlations():
    generator = torch.Generator().manual_seed(4)
    members = torch.randn(7, 1, 1, 1, dtype=torch.float64, generator=generator)
    truth = torch.randn(1, 1, 1, dtype=torch.float64, generator=generator)
    found = verify.energy_score(members, truth, torch.ones(1), torch.ones(1))
    torch.testing.assert_close(found, verify.fair_crps(members, truth)[0, 0, 0])
    shared = torch.randn(400, 1, 1, 1, dtype=torch.float64, generator=generator).expand(400, 1, 1, 2)
    together = shared[:200]
    apart = torch.randn(200, 1, 1, 2, dtype=torch.float64, generator=generator)
    truths = shared[200:]
    scores = [
        torch.stack([verify.energy_score(x, y, torch.ones(1), torch.ones(1)) for y in truths]).mean()
        for x in (together, apart)
    ]
    assert scores[0] < scores[1]
