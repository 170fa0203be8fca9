"""Chunks merge to the whole, standard errors are the textbook ones, station scores are what a loop computes."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from genda import verify
from genda.grid import LatLonGrid
from genda.verify.metrics import all_channels
from genda.verify.stations import assign_channels
from genda.verify.table import format_estimate

GRID = LatLonGrid.gaussian(16, 32)
CHANNELS = ("z500", "t2m", "q700")
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(5, "D").astype("timedelta64[ns]")
STD = np.array([2.0, 1.0, 0.5])


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(6, 3, *GRID.shape, generator=generator)
    size = torch.rand(6, 1, 1, 1, generator=generator) + 0.5
    background = truth + size * torch.randn(truth.shape, generator=generator)
    members = truth[:, None] + 0.5 * size[:, None] * torch.randn(6, 4, 3, *GRID.shape, generator=generator)
    return members, background, truth


def table(dates: slice) -> verify.ScoreTable:
    members, background, truth = case()
    options = {"times": TIMES[dates], "channels": CHANNELS, "grid": GRID, "min_degree": 3}
    rows = {
        "background": verify.field_statistics(background[dates], truth[dates], **options),
        "analysis": verify.field_statistics(members[dates], truth[dates], **options),
    }
    return verify.ScoreTable(rows, "background", STD)


def test_chunks_give_the_same_table_as_the_whole() -> None:
    whole = table(slice(None)).to_dict()
    chunked = table(slice(0, 1)).merge(table(slice(1, 4))).merge(table(slice(4, 6))).to_dict()
    assert chunked == whole
    assert {"rmse", "crps", "spread_skill", "specdiv", "nmse"} <= set(whole["rows"][1]["metrics"])
    with pytest.raises(ValueError, match="sample twice"):
        table(slice(0, 2)).merge(table(slice(1, 3)))


def test_scores_are_means_over_dates_before_roots() -> None:
    members, _, truth = case()
    rmse = table(slice(None)).score("analysis", verify.RMSE)
    assert rmse is not None
    mse = verify.mse(members.double().mean(dim=1), truth, GRID.area_weights).mean(dim=0)
    np.testing.assert_allclose(rmse.mean, mse.sqrt(), rtol=1e-12)
    nmse = table(slice(None)).score("analysis", verify.NMSE)
    assert nmse is not None
    np.testing.assert_allclose(nmse.mean, [(mse.numpy() / STD**2).mean()], rtol=1e-12)


def test_the_rmse_of_states_is_the_mean_of_roots() -> None:
    errors = np.random.default_rng(0).standard_normal((5, 3)) ** 2
    roots = np.sqrt(errors.mean(axis=1))
    values = {"state_error": roots[:, None]}
    found = verify.estimate(verify.Statistics(tuple(range(5)), CHANNELS, values, np.ones((5, 3))), verify.STATE_RMSE)
    np.testing.assert_allclose([found.mean, found.stderr], [[roots.mean()], [roots.std(ddof=1) / 5**0.5]])


def test_standard_error_of_a_mean_is_s_over_root_n_and_of_a_root_its_delta_method() -> None:
    mse = table(slice(None)).rows["analysis"].values["squared_error"]
    of_mean = verify.estimate(table(slice(None)).rows["analysis"], verify.MSE)
    expected = mse.std(axis=0, ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(of_mean.stderr, expected, rtol=1e-10)
    of_root = verify.estimate(table(slice(None)).rows["analysis"], verify.RMSE)
    np.testing.assert_allclose(of_root.stderr, expected / (2 * of_root.mean), rtol=0.2)


def test_a_paired_ratio_is_surer_than_its_parts() -> None:
    """Hard and easy dates are shared by both methods: they widen each score and cancel in the ratio."""
    scores = table(slice(None))
    relative, single = scores.ratio("analysis", verify.RMSE), scores.score("analysis", verify.RMSE)
    assert relative is not None
    assert single is not None
    assert (relative.stderr / relative.mean < 0.5 * single.stderr / single.mean).all()
    itself = scores.ratio("background", verify.RMSE)
    assert itself is not None
    np.testing.assert_allclose(itself.mean, 1.0)
    np.testing.assert_allclose(itself.stderr, 0.0, atol=1e-12)
    other = table(slice(0, 3)).rows["analysis"]
    with pytest.raises(ValueError, match="paired ratio"):
        verify.ratio(other, scores.rows["background"], verify.RMSE)


def test_one_date_has_a_score_and_no_error() -> None:
    document = table(slice(0, 1)).to_dict()
    cell = document["rows"][1]["metrics"]["rmse"]["z500"]
    assert cell["stderr"] is None
    assert cell["mean"] > 0
    assert "NaN" not in json.dumps(document)


def calibrated(spread: float, n: int = 9, dates: int = 40) -> verify.Statistics:
    """Members and truth from one distribution but for the members' spread."""
    generator = torch.Generator().manual_seed(n)
    truth = torch.randn(dates, 3, *GRID.shape, generator=generator)
    members = spread * torch.randn(dates, n, 3, *GRID.shape, generator=generator)
    times = TIMES[0] + np.arange(dates) * np.timedelta64(1, "D")
    return verify.field_statistics(members, truth, times=times, channels=CHANNELS, grid=GRID)


def test_outliers_are_as_many_as_expected_if_calibrated_and_the_closed_form_if_not() -> None:
    """P(truth outside N members of spread s) = 2 ∫ Φ(y/s)^N φ(y) dy, by quadrature."""
    y = np.linspace(-9, 9, 4001)
    density = stats.norm.pdf(y) * (y[1] - y[0])
    for spread in (1.0, 0.5):
        rows = calibrated(spread)
        found = verify.estimate(rows, verify.OUTLIERS)
        expected = 2 * (stats.norm.cdf(y / spread) ** 9 * density).sum() * 10 / 2
        assert (abs(found.mean - expected) < 4 * found.stderr).all()
        assert (found.stderr < 0.02 * expected).all()
    assert expected > 2


def test_a_document_holds_the_whole_histogram_beside_its_summary() -> None:
    rows = calibrated(0.5)
    cell = verify.ScoreTable({"a": rows}).to_dict()["rows"][0]["metrics"]["outliers"]["t2m"]
    np.testing.assert_allclose(cell["rank_histogram"], rows.values["rank_histogram"][:, 1].mean(axis=0))
    assert sum(cell["rank_histogram"]) == pytest.approx(1)
    assert cell["mean"] == pytest.approx((cell["rank_histogram"][0] + cell["rank_histogram"][-1]) * 5)


def test_the_energy_score_is_one_number_a_date_and_for_a_single_field_the_norm_of_its_error() -> None:
    members, background, truth = case()
    options = {"times": TIMES, "channels": CHANNELS, "grid": GRID, "std": STD}
    rows = {name: verify.field_statistics(x, truth, **options) for name, x in (("b", background), ("a", members))}
    scores = verify.ScoreTable(rows, "b")
    each = [float(verify.energy_score(x, y, GRID.area_weights, STD)) for x, y in zip(members, truth, strict=True)]
    score, relative = scores.score("a", verify.ENERGY_SCORE), scores.ratio("a", verify.ENERGY_SCORE)
    assert score is not None
    assert relative is not None
    np.testing.assert_allclose(score.mean, [np.mean(each)])
    np.testing.assert_allclose(score.stderr, [np.std(each, ddof=1) / np.sqrt(6)])
    squares = rows["b"].values["squared_error"] / STD**2
    np.testing.assert_allclose(relative.mean, [np.mean(each) / np.sqrt(squares.mean(axis=1)).mean()])
    assert set(scores.to_dict()["rows"][1]["metrics"]["energy_score"]) == {"all"}
    assert scores.to_markdown(verify.ENERGY_SCORE, CHANNELS).splitlines()[0] == "| Fair energy score | all |"
    with pytest.raises(ValueError, match=r"std: found shape \(2,\), expected \(3,\)"):
        verify.field_statistics(members, truth, **(options | {"std": STD[:2]}))


def test_statistics_with_trailing_dimensions_and_of_the_whole_state_keep_their_weights() -> None:
    """What has no weight is not looked at; a date counts for the whole state as much as for the channel it weighs most in."""
    weight = np.array([[2.0, 0.0], [1.0, 3.0], [1.0, 1.0]])
    histogram, whole = np.random.default_rng(0).random((3, 2, 5)), np.array([[1.0], [2.0], [4.0]])
    histogram[0, 1] = np.nan
    rows = verify.Statistics((1, 2, 3), ("a", "b"), {"histogram": histogram, "whole": whole}, weight)
    means, without = rows.means(), rows.means_without_each()
    np.testing.assert_allclose(means["histogram"][1], (3 * histogram[1, 1] + histogram[2, 1]) / 4)
    np.testing.assert_allclose(means["whole"], [(2 * 1 + 3 * 2 + 1 * 4) / 6])
    np.testing.assert_allclose(without["whole"], [[(3 * 2 + 4) / 4], [(2 + 4) / 3], [(2 + 3 * 2) / 5]])
    for i in range(3):
        rest = rows.only([k for k in (1, 2, 3) if k != i + 1]).means()
        for name in ("histogram", "whole"):
            np.testing.assert_allclose(without[name][i], rest[name])
    whole_metric = verify.Metric("w", "W", ("whole",), lambda s, _: s["whole"], all_channels)
    assert verify.estimate(rows, whole_metric).stderr == pytest.approx(np.sqrt(2 / 3 * np.var([2.5, 2, 1.6]) * 3))


def test_ensembles_of_different_sizes_do_not_merge() -> None:
    later = verify.field_statistics(
        torch.randn(1, 5, 3, *GRID.shape), torch.zeros(1, 3, *GRID.shape), times=TIMES[5:], channels=CHANNELS, grid=GRID
    )
    with pytest.raises(ValueError, match=r"rank_histogram: found shape \(3, 6\) of a sample, expected \(3, 10\)"):
        calibrated(1.0, dates=2).merge(later)


def test_text_forms_hold_every_method_units_and_a_dash_for_what_is_undefined() -> None:
    scores = table(slice(None))
    for text in (scores.to_text(verify.SPREAD), scores.to_markdown(verify.SPREAD)):
        assert all(part in text for part in ("z500 [m2 s-2]", "analysis", "±"))
        assert "–" in next(line for line in text.splitlines() if "background" in line)
    assert scores.to_text(verify.RMSE, ["t2m"], relative=True).count("\n") == 3
    lines = scores.by_channel(next(iter(scores.rows)), (verify.RMSE, verify.NMSE)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(scores.channels)


def test_a_value_that_is_not_finite_is_named() -> None:
    members, _, truth = case()
    members[2, 1, 1, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="forecast: found a value that is not finite in t2m at 2001-01-11"):
        verify.field_statistics(members, truth, times=TIMES, channels=CHANNELS, grid=GRID)


def observations(rng: np.random.Generator, n: int = 400) -> pd.DataFrame:
    variable = rng.choice(["t", "u", "t2m"], n)
    pressure = np.where(variable == "t2m", np.nan, rng.choice([85000.0, 50000.0, 3000.0], n))
    observation = rng.normal(250, 10, n)
    return pd.DataFrame(
        {
            "time": np.datetime64("2001-01-01", "ns"),
            "latitude": rng.uniform(-90, 90, n),
            "longitude": rng.uniform(0, 360, n),
            "pressure": pressure,
            "elevation": np.nan,
            "variable": variable,
            "observation": observation,
            "obs_error": 1.0,
            "station": rng.choice([f"s{i}" for i in range(12)], n),
            "source": "simulated",
            "quality": rng.choice([0, 0, 0, 4], n).astype(np.int16),
            "hx_b": observation + rng.normal(0.5, 2, n),
            "hx_a": observation + rng.normal(0, 1, n),
        }
    )


def test_station_scores_match_a_plain_loop() -> None:
    frame = observations(np.random.default_rng(0))
    rows = {name: verify.station_statistics(frame, name) for name in ("hx_b", "hx_a")}
    scores = verify.ScoreTable(rows, "hx_b")
    assert scores.channels == ("t850", "t500", "u850", "u500", "t2m")
    rmse, bias = scores.score("hx_a", verify.RMSE), scores.score("hx_a", verify.BIAS)
    assert rmse is not None
    assert bias is not None
    for i, (variable, pressure) in enumerate([("t", 85000), ("t", 50000), ("u", 85000), ("u", 50000), ("t2m", None)]):
        chosen = frame[(frame.variable == variable) & (frame.quality == 0)]
        chosen = chosen if pressure is None else chosen[chosen.pressure == pressure]
        error = chosen.hx_a - chosen.observation
        assert rmse.mean[i] == pytest.approx(np.sqrt((error**2).mean()))
        assert bias.mean[i] == pytest.approx(error.mean())
        assert rows["hx_a"].weight[:, i].sum() == len(chosen)
    ratio = scores.ratio("hx_a", verify.RMSE)
    assert ratio is not None
    background = scores.score("hx_b", verify.RMSE)
    assert background is not None
    np.testing.assert_allclose(ratio.mean, rmse.mean / background.mean)
    assert (abs(ratio.mean - 1 / np.sqrt(4.25)) < 4 * ratio.stderr).all()


def test_departures_of_an_ensemble_whose_spread_is_its_error_are_as_large_as_expected() -> None:
    """Departures of members with an error of 2 and observations with one of 1 have a variance of 5, whatever a station reports."""
    rng = np.random.default_rng(3)
    frame = observations(rng, 20_000)
    frame["hx_a"] = frame["observation"] + 5**0.5 * rng.standard_normal(len(frame))
    for spread, expected in ((2.0, 1.0), (0.0, 5.0), (3.0, 0.5)):
        scored = verify.station_statistics(frame.assign(hx_spread=spread))
        found = verify.estimate(scored, verify.DEPARTURE_CHI_SQUARE)
        assert (abs(found.mean - expected) < 4 * found.stderr).all()
    assert not verify.station_statistics(frame).supports(verify.DEPARTURE_CHI_SQUARE)


def test_the_station_jackknife_knows_that_a_station_errs_as_one() -> None:
    """Twelve stations with one bias each: the error of the mean bias is that of 12 numbers, not of 1,200."""
    rng = np.random.default_rng(1)
    frame = observations(rng, 1200)
    offset = {name: rng.normal() for name in frame.station.unique()}
    frame["hx_a"] = frame["observation"] + frame["station"].map(offset)
    frame["variable"], frame["pressure"], frame["quality"] = "t", 50000.0, 0
    estimate = verify.estimate(verify.station_statistics(frame, "hx_a"), verify.BIAS)
    assert estimate.stderr[0] == pytest.approx(np.std(list(offset.values()), ddof=1) / np.sqrt(12), rel=0.15)


def test_level_bins_hold_their_level_do_not_overlap_and_leave_the_far_out() -> None:
    bins = verify.level_bins()
    assert [b.level_hpa for b in bins] == [850, 700, 500, 300, 200]
    assert all(b.top < 100 * b.level_hpa < b.bottom for b in bins)
    assert all(above.bottom <= below.top + 1e-6 for below, above in pairwise(bins))
    frame = pd.DataFrame({"variable": ["t", "t", "msl"], "pressure": [7000.0, 84000.0, np.nan]})
    assert assign_channels(frame, bins).fillna("none").tolist() == ["none", "t850", "msl"]


def test_a_table_without_scorable_rows_is_refused() -> None:
    frame = observations(np.random.default_rng(0))
    with pytest.raises(ValueError, match="hx_c are missing"):
        verify.station_statistics(frame, "hx_c")
    with pytest.raises(ValueError, match="found no row"):
        verify.station_statistics(frame.assign(quality=9))


def test_antithetic_members_are_neither_flattered_nor_blamed():
    generator = torch.Generator().manual_seed(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(40) * np.timedelta64(1, "D")
    truth = torch.randn(40, 3, *GRID.shape, generator=generator)
    half = torch.randn(40, 3, 3, *GRID.shape, generator=generator)
    members = torch.stack([half, -half], dim=2).flatten(1, 2)
    options = {"times": times, "channels": CHANNELS, "grid": GRID, "std": np.ones(3)}
    means = verify.field_statistics(members, truth, antithetic=True, **options).means()
    taken_as_independent = verify.field_statistics(members, truth, **options).means()
    assert means["crps"] == pytest.approx(1 / np.pi**0.5, rel=0.02)  # of a calibrated Gaussian ensemble
    assert (taken_as_independent["crps"] < 0.95 / np.pi**0.5).all()
    assert means["squared_spread"] == pytest.approx(means["squared_error"], rel=0.02)
    assert (taken_as_independent["squared_spread"] > 1.1 * means["squared_error"]).all()
    assert "crps_alpha" in taken_as_independent
    assert not {"crps_alpha", "crps_beta"} & set(means)
    with pytest.raises(ValueError, match="found 5 antithetic members, expected an even number from 4"):
        verify.field_statistics(members[:, :5], truth, antithetic=True, **options)


def test_pairs_that_cancel_in_part_or_not_at_all_are_scored_by_what_is_left():
    """Members s h_k + c g_k, with h of opposite sign in a pair: from quite opposite to quite independent."""
    generator = torch.Generator().manual_seed(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    truth = torch.randn(60, 3, *GRID.shape, generator=generator)
    opposite, own = (torch.randn(60, count, 3, *GRID.shape, generator=generator) for count in (2, 4))
    opposite = torch.stack([opposite, -opposite], dim=2).flatten(1, 2)
    for share in (0.0, 0.5, 1.0):
        members = share**0.5 * opposite + (1 - share) ** 0.5 * own
        means = verify.field_statistics(
            members, truth, times=times, channels=CHANNELS, grid=GRID, antithetic=True
        ).means()
        assert means["squared_spread"] == pytest.approx(means["squared_error"], rel=0.03)


@pytest.mark.parametrize(
    ("mean", "stderr", "shown"),
    [
        (0.43214, 0.0056, "0.4321 ± 0.0056"),
        (-0.3, 20.0, "0 ± 20"),
        (-1.514e-4, 1.3e-4, "-1.5e-04 ± 1.3e-04"),
        (-2.164e-6, 1.1e-4, "-2e-06 ± 1.1e-04"),
        (3.21987e-6, 2.4e-8, "3.220e-06 ± 2.4e-08"),
        (1234567.0, 5.0, "1.235e+06 ± 5.0e+00"),
    ],
)
def test_a_mean_is_shown_as_well_as_it_is_known(mean, stderr, shown):
    assert format_estimate(mean, stderr) == shown
