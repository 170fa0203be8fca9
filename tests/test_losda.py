"""LO-SDA from outside: background and observations in, an ensemble out; everything that does not fit is one clear line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import small_latent
import small_model
from command_line import run
from genda import assimilation as library
from genda.demo import simulate_columns
from genda.files import open_dataset
from genda.latent_methods import EnsembleShare, latent_sampler
from genda.latent_model import load_latent_model
from genda.methods.baseline import Persistence
from genda.observations.table import write_table
from genda.sources import coarse_field, point_source
from genda.state import State, read_state, to_dataset, write_dataset


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Two models, a truth, forecasts of it and columns at the radiosonde sites."""
    folder = tmp_path_factory.mktemp("case")
    small_latent.saved(folder / "losda")
    small_model.saved(folder / "states")
    truth = small_model.states(1, seed=9)
    write_dataset(to_dataset(truth), folder / "truth.nc")
    write_dataset(to_dataset(small_latent.background(truth)), folder / "forecast.nc")
    columns = simulate_columns(small_model.build(), truth, seed=0)
    write_table(columns[columns["station"].isin(columns["station"].unique()[:200])], folder / "columns.parquet")
    return folder


def assimilate(case, capsys, *extra, model="losda", background="forecast.nc"):
    arguments = ["assimilate", "--model", case / model, "--observations", case / "columns.parquet"]
    arguments += ["--background", case / background] if background else []
    steps = [] if {"latent-3d-var", "latent-gaussian"} & {*extra} else ["--steps", 12]
    return run(capsys, *arguments, "--out", case / "analysis.nc", "--members", 8, *steps, "--json", *extra)


def error_of(path, case):
    """Mean squared error of a file's mean in units of the climatological variance."""
    truth, state = read_state(case / "truth.nc"), read_state(path)
    mean = state.values.mean(dim=1) if state.values.ndim == 5 else state.values
    return float(((mean - truth.values) / small_model.build().normalisation.std.view(-1, 1, 1)).square().mean())


@pytest.mark.parametrize(
    ("method", "bound"),
    [
        ("losda", 0.75),
        (None, 0.75),
        ("latent-mmps", 0.9),
        ("latent-dps", 0.95),
        ("latent-3d-var", 0.95),
        ("latent-gaussian", 0.75),
    ],
)
def test_an_analysis_is_nearer_the_truth_than_its_background(case, capsys, method, bound):
    code, out, err = assimilate(case, capsys, *(["--method", method] if method else []))
    assert code == 0, err
    assert json.loads(out)["method"] == (method or "losda")
    assert error_of(case / "analysis.nc", case) < bound * error_of(case / "forecast.nc", case)


def test_members_from_opposite_noise_are_verified_as_such(case, capsys):
    assert assimilate(case, capsys)[0] == 0
    scores = {}
    with open_dataset(case / "analysis.nc") as file:
        analysis = file.load()
    count = analysis.sizes["number"]
    write_dataset(to_dataset(read_state(case / "analysis.nc")), case / "unmarked.nc")
    write_dataset(analysis.isel(number=[*range(1, count, 2), *range(0, count, 2)]), case / "reordered.nc")
    write_dataset(analysis.isel(number=slice(0, count - 1)), case / "alone.nc")
    write_dataset(analysis.isel(number=slice(0, count - 2)), case / "whole.nc")
    for name in ("analysis.nc", "unmarked.nc", "reordered.nc", "alone.nc", "whole.nc"):
        code, out, err = run(capsys, "verify", case / name, "--truth", case / "truth.nc", "--json")
        assert code == 0, err
        metrics = json.loads(out)["rows"][0]["metrics"]
        scores[name] = {
            key: np.mean([cell["mean"] for cell in metrics[key].values()]) for key in ("crps", "spread_skill")
        }
    assert scores["analysis.nc"]["spread_skill"] < 0.95 * scores["unmarked.nc"]["spread_skill"]
    assert scores["analysis.nc"]["crps"] > scores["unmarked.nc"]["crps"]
    assert scores["reordered.nc"] == pytest.approx(scores["analysis.nc"], rel=1e-6)
    assert scores["alone.nc"] == scores["whole.nc"]  # a member whose opposite is missing does not count
    write_dataset(analysis.isel(number=slice(0, 2)), case / "pair.nc")
    code, out, err = run(capsys, "verify", case / "pair.nc", "--truth", case / "truth.nc", "--json")
    assert code == 0, err
    assert "spread_skill" not in json.loads(out)["rows"][0]["metrics"]  # of one pair the mean alone is scored


def test_without_observations_samples_are_about_the_background(case, capsys):
    arguments = ["assimilate", "--model", case / "losda", "--background", case / "forecast.nc", "--members", 8]
    code, _, err = run(capsys, *arguments, "--method", "latent-prior", "--steps", 12, "--out", case / "prior.nc")
    assert code == 0, err
    spread = read_state(case / "prior.nc").values[0].std(dim=0) / small_model.build().normalisation.std.view(-1, 1, 1)
    assert float(spread.square().mean().sqrt()) == pytest.approx(small_latent.ERROR, rel=0.25)


def test_an_ensemble_as_background_gives_its_covariance(case, capsys):
    # Members on both sides of the forecast, along the day's own error: who sees them knows what to look for.
    truth, forecast = read_state(case / "truth.nc"), read_state(case / "forecast.nc")
    along = torch.tensor([-1.5, -0.5, 0.5, 1.5]).view(1, -1, 1, 1, 1) * (truth.values - forecast.values).unsqueeze(1)
    members = State(forecast.values.unsqueeze(1) + along, truth.channels, truth.grid, truth.times)
    write_dataset(to_dataset(members), case / "ensemble.nc")
    errors = {}
    for background in ("forecast.nc", "ensemble.nc"):
        code, out, err = assimilate(case, capsys, background=background)
        assert code == 0, err
        errors[background] = error_of(case / "analysis.nc", case)
    assert errors["ensemble.nc"] < 0.5 * errors["forecast.nc"]
    assert json.loads(out)["lead"] == 24


def test_the_report_shows_the_forecast_as_background(case, capsys):
    code, _, err = assimilate(case, capsys, "--report", case / "report.html")
    assert code == 0, err
    assert str(case / "forecast.nc") in (case / "report.html").read_text()


def test_members_depend_on_the_seed_and_not_on_the_batch(case, capsys):
    states = []
    for extra in ([], ["--batch", 3], ["--seed", 1]):
        assert assimilate(case, capsys, *extra)[0] == 0
        states.append(read_state(case / "analysis.nc").values)
    std = small_model.build().normalisation.std.view(-1, 1, 1)
    assert float(((states[0] - states[1]) / std).abs().max()) < 1e-3
    assert float(((states[0] - states[2]) / std).abs().max()) > 0.1


def write(case, name, state):
    write_dataset(to_dataset(state), case / name)
    return name


def test_a_background_without_a_time_is_of_the_time_asked_for_and_an_analysis_may_be_a_zarr_store(case, capsys):
    with xr.open_dataset(case / "forecast.nc") as forecast:
        time = str(forecast["time"].values[0])
        forecast.isel(time=0, drop=True).to_netcdf(case / "timeless.nc", engine="h5netcdf")
    for background, out in (("forecast.nc", "analysis.nc"), ("timeless.nc", "analysis.zarr")):
        code, _, err = assimilate(case, capsys, "--time", time, "--out", case / out, background=background)
        assert code == 0, err
    states = [read_state(case / name) for name in ("analysis.nc", "analysis.zarr")]
    assert torch.equal(states[0].values, states[1].values)
    assert (case / "analysis.zarr" / "zarr.json").is_file()
    code, _, err = assimilate(case, capsys, "--out", case / "analysis.zarr")
    assert (code, err.count("\n")) == (2, 1)
    assert "analysis.zarr: found a folder" in err


def test_what_a_method_ran_with_is_said_and_what_it_does_not_read_is_refused(case):
    model, truth = library.load(case / "losda"), read_state(case / "truth.nc")
    forecast, time = read_state(case / "forecast.nc"), truth.times[0]
    table = simulate_columns(model, truth, seed=0, stations=5)
    source = point_source(model, table, time)

    def analysed(method, **settings):
        return library.assimilate(model, [source], time, method, 2, background=forecast, **settings).settings

    found = analysed("losda", sampler=latent_sampler(steps=2), optimisation={"every": 1})
    assert (found["sampler"]["steps"], found["optimisation"]["metric"]) == (2, "covariance")
    json.dumps(found, allow_nan=False)
    assert "ensemble" not in found  # the forecast has no members
    for method, settings, complaint in [
        ("losda", {"steps": 3}, "settings: found steps, expected some of sampler"),
        ("losda", {"width": 1e5}, "width: found it with method losda, expected it with diffda alone"),
        ("latent-3d-var", {"ensemble": EnsembleShare(correction=0.1)}, "ensemble: found it with method latent-3d-var"),
        ("latent-mmps", {"iterations": 0}, "iterations: found 0, expected at least 1"),
        ("fusion", {}, "unknown to a prior of background errors"),
        (Persistence(), {"gamma": 0.1}, "settings: found gamma with a method that is made"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            analysed(method, **settings)


def test_what_does_not_fit_is_one_clear_line(case, capsys):
    truth = read_state(case / "truth.nc")
    coarse = coarse_field(truth, 2)
    few = truth.select(truth.channels[:3])
    later = State(truth.values, truth.channels, truth.grid, truth.times + 1)
    later = State(later.values, later.channels, later.grid, truth.times + (later.times - truth.times) * 86_400 * 10**9)
    both = State(
        torch.cat([truth.values, later.values]), truth.channels, truth.grid, np.concatenate([truth.times, later.times])
    )
    for arguments, complaint in [
        ({"background": None}, "background: found none for"),
        ({"background": write(case, "both.nc", both)}, "both.nc: found 2 times, "),
        ({"background": write(case, "later.nc", later)}, "; times: "),
        ({"model": "states"}, "expected --background where a model is a prior of background errors"),
        (
            {"background": write(case, "coarse.nc", coarse)},
            "background: found a grid of 8 rows from 76.2426 to -76.2426 and 16 columns",
        ),
        ({"background": write(case, "few.nc", few)}, "few.nc: "),
        ({"background": write(case, "later.nc", later), "extra": ["--time", "2001-01-01"]}, "expected 2001-01-01"),
        ({"extra": ["--lead", "48"]}, "lead: found 48 h, expected one of 24"),
        ({"extra": ["--method", "fusion"]}, "unknown to a prior of background errors"),
        ({"extra": ["--method", "diffda"]}, "without autoencoder"),
        ({"extra": ["--map-climate"]}, "map climate: found a background"),
        ({"model": "losda/autoencoder"}, "found an autoencoder, expected a prior"),
        ({"model": "states", "background": None, "extra": ["--method", "losda"]}, "expected one of background errors"),
        ({"model": "states", "background": None, "extra": ["--lead", "24"]}, "lead: found 24 h without a background"),
        ({"extra": ["--device", "foo"]}, "device: found 'foo', expected cpu, cuda"),
        ({"extra": ["--gamma", 0.1]}, "gamma: found it with method losda, expected it with latent-dps alone"),
        ({"extra": ["--method", "latent-mmps", "--gamma", 0.1]}, "gamma: found it with method latent-mmps"),
        ({"extra": ["--method", "latent-gaussian", "--steps", 4]}, "steps: found 4 with method latent-gaussian"),
        ({"extra": ["--method", "latent-prior"]}, "latent-prior: found observations, expected none"),
        ({"extra": ["--out", case / "analysis.txt"]}, "found the suffix '.txt', expected one of .nc, .nc4, .zarr"),
        ({"extra": ["--out", case / "forecast.nc"]}, "forecast.nc: found it among the input"),
        ({"extra": ["--report", case / "analysis.nc"]}, "analysis.nc: found it among the output"),
    ]:
        (case / "analysis.nc").unlink(missing_ok=True)
        extra = arguments.pop("extra", [])
        code, _, err = assimilate(case, capsys, *extra, **arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert complaint in err
        assert not (case / "analysis.nc").exists()


def test_inspect_says_what_a_prior_of_background_errors_is(case, capsys):
    code, out, _ = run(capsys, "inspect", case / "losda", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["format"] == "genda-increments"
    assert document["leads"] == [24]
    assert document["autoencoder"]["latent"] == 20
    code, out, _ = run(capsys, "inspect", case / "losda" / "autoencoder")
    assert code == 0
    assert "genda-autoencoder" in out


def test_a_prior_runs_what_it_was_trained_to(case):
    model = load_latent_model(case / "losda")
    assert library.usual_method(model) == "losda"
    assert library.usual_method(replace(model, error=torch.ones(1, len(model.channels)))) == "phyda"
