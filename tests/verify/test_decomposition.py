"""Hersbach's parts: their sum is the CRPS of the scores package, each of them a closed form for an ensemble that never changes."""

import numpy as np
import pytest
import scores as oracle
import torch
import xarray as xr

from genda import verify
from genda.grid import LatLonGrid

GRID = LatLonGrid.gaussian(8, 16)
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D").astype("timedelta64[ns]")
CHANNELS = ("t850", "q700")


def parts(members, truth, dates=slice(None)):
    """Statistics, reliability and potential CRPS."""
    rows = verify.field_statistics(members[dates], truth[dates], times=TIMES[dates], channels=CHANNELS, grid=GRID)
    return rows, *(verify.estimate(rows, m).mean for m in (verify.CRPS_RELIABILITY, verify.CRPS_POTENTIAL))


@pytest.mark.parametrize("count", [2, 7])
def test_the_parts_sum_to_the_crps_of_the_same_ensemble(count):
    generator = torch.Generator().manual_seed(count)
    members = torch.randn(3, count, 2, *GRID.shape, generator=generator)
    truth = 2 * torch.randn(3, 2, *GRID.shape, generator=generator) + 0.5
    truth[:, 1, :, ::2] = members[:, 0, 1, :, ::2]  # ties
    members[:, :, 1, :2], truth[:, 1, :2] = 0.0, 0.0  # and fields cut off at zero
    _, reliability, potential = parts(members, truth)
    expected = oracle.probability.crps_for_ensemble(
        xr.DataArray(members.double().numpy(), dims=("time", "member", "channel", "lat", "lon")),
        xr.DataArray(truth.double().numpy(), dims=("time", "channel", "lat", "lon")),
        "member",
        method="ecdf",
        preserve_dims="channel",
        weights=xr.DataArray(GRID.area_weights, dims="lat"),
    )
    np.testing.assert_allclose(reliability + potential, expected.values, rtol=1e-12)


def test_the_parts_of_merged_dates_are_those_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    members, truth = torch.randn(3, 5, 2, *GRID.shape, generator=generator), torch.zeros(3, 2, *GRID.shape)
    rows, *whole = parts(members, truth)
    merged = parts(members, truth, slice(0, 1))[0].merge(parts(members, truth, slice(1, 3))[0])
    for metric, expected in zip((verify.CRPS_RELIABILITY, verify.CRPS_POTENTIAL), whole, strict=True):
        np.testing.assert_allclose(verify.estimate(merged, metric).mean, expected, rtol=1e-12)
        assert (verify.estimate(rows, metric).stderr > 0).all()


def test_members_that_never_change_have_their_closed_form():
    """Truth uniform on (0, 1), members always 0.2 and 0.6: bins of widths g = β_0/o_0 = 0.1, 0.4 and α_2/(1-o_2) = 0.2.

    The truth is below them with frequencies o = 0.2, 0.4 (the mean of F over the bin) and 0.6, where 0, 1/2 and 1 were forecast.
    """
    truth = (torch.arange(10_000, dtype=torch.float64) + 0.5).div(10_000).view(1, 100, 100)
    members = torch.tensor([0.6, 0.2], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 1, 100, 100)
    area = np.ones(100)
    bins = [x.numpy() for x in verify.crps_bins(members, truth, area)]
    reliability, potential = verify.crps_parts(*bins, verify.rank_histogram(members, truth, area).numpy())
    assert reliability[0] == pytest.approx(0.1 * 0.2**2 + 0.4 * 0.1**2 + 0.2 * 0.4**2, rel=1e-6)
    assert potential[0] == pytest.approx(0.1 * 0.2 * 0.8 + 0.4 * 0.4 * 0.6 + 0.2 * 0.6 * 0.4, rel=1e-6)


def test_a_calibrated_ensemble_is_reliable_and_a_shift_is_charged_to_reliability():
    generator = torch.Generator().manual_seed(1)
    members, truth = torch.randn(40, 1, 150, 150, generator=generator), torch.randn(1, 150, 150, generator=generator)
    area, found = np.ones(150), []
    for offset in (0.0, 1.0):
        shifted = truth + offset
        bins = [x.numpy() for x in verify.crps_bins(members, shifted, area)]
        found.append(verify.crps_parts(*bins, verify.rank_histogram(members, shifted, area).numpy()))
    (good, _), (bad, potential) = found
    assert good < 0.01 * potential
    assert bad > 0.2 * potential
