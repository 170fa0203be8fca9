"""Twin experiments on the shipped sample case: fairness, order of the classical methods, and what is refused before any work."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import small_model
from genda.assets import SAMPLE_ERRORS
from genda.benchmark import read_results, read_suite, run_suite
from genda.benchmark.archive import SampleArchive, fingerprint
from genda.benchmark.experiment import experiment_of
from genda.benchmark.runner import pairs
from genda.checkpoint import read_card
from genda.methods.letkf import LETKF
from genda.verify import NMSE, SPREAD_SKILL

COVARIANCE = {"form": "zonal", "sample": "leads"}
SUITE = {
    "kind": "twin",
    "suite": "small",
    "dates": 2,
    "pairs": 40,
    "scenarios": {"3 %": [{"kind": "columns", "density": 0.03, "noise": 0.1}]},
    "reference": "background",
    "methods": {
        "background": {"method": "background"},
        "ensemble": {"method": "ensemble"},
        "climatology": {"method": "climatology"},
        "3D-Var": {"method": "3d-var", "covariance": COVARIANCE},
        "LETKF": {"method": "letkf"},
        "hybrid": {"method": "hybrid", "covariance": COVARIANCE},
    },
}


def written(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin")
    suite = read_suite(written(folder))
    run_suite(suite, folder / "runs")
    return suite, folder / "runs"


def test_only_forecasts_ask_for_a_nature_run(finished, monkeypatch):
    def none(self):
        raise ValueError("found no seed, expected the attributes of a nature run")

    monkeypatch.setattr(SampleArchive, "run", property(none))
    suite, runs = finished
    experiment, pair = experiment_of(suite), pairs(suite, runs)[0]
    found = experiment.run(suite.methods[pair.name], pair.scenario, pair.case)
    with np.load(pair.file) as saved:
        np.testing.assert_array_equal(found.values["squared_error"], saved["value:squared_error"])


def test_an_analysis_of_dense_columns_beats_its_background_and_the_ensemble_helps(finished):
    results = read_results(*finished)
    table = results.table("3 %")
    nmse = {name: float(table.score(name, NMSE).mean[0]) for name in SUITE["methods"]}
    assert nmse["3D-Var"] < 0.8 * nmse["background"]
    assert nmse["hybrid"] < nmse["3D-Var"]
    assert nmse["LETKF"] < nmse["background"] < nmse["climatology"]
    assert nmse["ensemble"] == pytest.approx(nmse["background"], rel=0.05)
    assert 0.5 < float(table.score("ensemble", SPREAD_SKILL).mean.mean()) < 1.5
    document = results.to_dict()
    assert [row["method"] for row in document["rows"]] == list(SUITE["methods"])
    assert {row["scenario"] for row in document["rows"]} == {"3 %"}
    assert document["dates"] == 2
    assert "## 3 %" in results.to_markdown()


def test_finished_pairs_are_not_run_again_and_are_shared_by_suites_that_agree(finished, tmp_path):
    suite, runs = finished
    times = {pair.file: pair.file.stat().st_mtime_ns for pair in pairs(suite, runs)}
    run_suite(suite, runs)
    assert {pair.file: pair.file.stat().st_mtime_ns for pair in pairs(suite, runs)} == times
    more = read_suite(
        written(tmp_path, suite="other", scenarios=SUITE["scenarios"] | {"1 %": [{"kind": "columns", "density": 0.01}]})
    )
    shared = {pair.file for pair in pairs(more, runs) if pair.scenario == "3 %"}
    assert shared == set(times)
    fewer = read_suite(tmp_path / "small.yaml", scenarios=["3 %"], dates=1)
    assert {pair.file for pair in pairs(fewer, runs)} < set(times)
    without_ensemble = read_suite(tmp_path / "small.yaml", methods=["3D-Var"])
    assert experiment_of(without_ensemble, None).cases == experiment_of(suite, None).cases
    noisier = {"3 %": [{"kind": "columns", "density": 0.03, "noise": 0.2}]}
    changed = read_suite(written(tmp_path, scenarios=noisier))
    assert not {pair.file for pair in pairs(changed, runs)} & set(times)


def test_every_method_sees_the_same_observations_and_densities_do_not_change_the_noise_of_others(finished):
    experiment = experiment_of(finished[0])
    truth = experiment._archive.truth(np.datetime64(experiment.cases[0], "ns"))
    network = experiment.suite.scenarios["3 %"][0]
    first, again = (experiment._source(network, truth, 0) for _ in range(2))
    assert torch.equal(first.values, again.values)
    misfit = first.misfit(experiment._normalised(truth.values, truth.times[0]))
    assert float(misfit.std()) == pytest.approx(0.1, rel=0.03)
    assert len(first.values) == round(0.03 * 48 * 96) * 29


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dates": 3}, "found 2 test dates with a background and an ensemble, expected 3"),
        ({"pairs": 1000}, "found 100 training backgrounds, expected 1000"),
        ({"forecast_hours": 24}, "forecast_hours: found no nature run"),
        ({"forecast_hours": 12}, "forecast_hours"),
        ({"split": "validation"}, "split: found 'validation' without a nature run"),
        ({"prior": "nothing"}, "model 'nothing': found neither a shipped model"),
        ({"scenarios": {"all": [{"kind": "columns", "density": 1.5}]}}, "density"),
        ({"scenarios": {"all": [{"kind": "columns", "density": 0.1, "error": 0.0}]}}, "error"),
        ({"scenarios": {"all": [{"kind": "columns", "density": 0.1, "error": 1e-30}]}}, "error"),
        ({"scenarios": {"all": [{"kind": "columns", "density": 0.1, "noise": float("inf")}]}}, "noise"),
        (
            {"scenarios": {"all": [{"kind": "columns", "density": 1e-5}]}},
            "scenarios.all: density: found 1e-05, expected at",
        ),
        (
            {"scenarios": {"all": [{"kind": "field", "factor": 5}]}},
            "scenarios.all: coarsening factor: found 5, expected",
        ),
        (
            {"scenarios": {"all": [{"kind": "wind-speed", "density": 0.01}]}},
            "scenarios.all: found methods.LETKF, which reads grid values alone",
        ),
        ({"scenarios": {"all": []}}, "scenarios.all"),
        ({"scenarios": {}}, "scenarios: .*found {}"),
        ({"lead": 36}, "lead: found 36 h, expected 24 or 48"),
        ({"lead": 48}, "lead: found 48 h with rows that take an ensemble, expected 24"),
        ({"methods": SUITE["methods"] | {"cubic": {"method": "bicubic"}}}, "methods.cubic: found no field in 3 %"),
        (
            {"methods": SUITE["methods"] | {"rare": {"method": "climatology", "only": ["4 %"]}}},
            "methods.rare.only: found none of the scenarios 3 %",
        ),
        (
            {
                "scenarios": SUITE["scenarios"] | {"1 %": [{"kind": "columns", "density": 0.01}]},
                "methods": {"background": {"method": "background", "only": ["1 %"]}},
            },
            "methods.background.only: found 1 %, expected all for the reference",
        ),
        (
            {"methods": SUITE["methods"] | {"EDM": {"method": "fusion", "settings": {"gama": 1.0}}}},
            "methods.EDM.fusion.settings: .*found no setting gama, expected some of iterations, gamma",
        ),
        (
            {"methods": SUITE["methods"] | {"EDM": {"method": "fusion", "sampler": {"step": 3}}}},
            "methods.EDM.fusion.sampler: .*found no setting step, expected some of steps, sigma_min",
        ),
        ({"methods": {"a, b": {"method": "background"}}, "reference": "a, b"}, "found a comma in 'a, b'"),
        ({"methods": {"background": {"method": "background", "radius": 3}}}, "methods.background.background.radius"),
    ],
)
def test_bad_suites_are_refused_before_any_work(tmp_path, changes, complaint):
    with pytest.raises((ValueError, FileNotFoundError), match="(?s)" + complaint.replace("?", r"\?")):
        run_suite(read_suite(written(tmp_path, **changes)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_prior_is_not_judged_on_its_training_dates(tmp_path):
    directory = small_model.saved(tmp_path / "prior")
    card = read_card(directory)
    trained = card.model_copy(update={"training": {"first_time": "2001-01-01", "last_time": "2009-01-01"}})
    (directory / "model.json").write_text(trained.model_dump_json())
    suite = read_suite(written(tmp_path, prior=str(directory)))
    with pytest.raises(ValueError, match="trained on 2001-01-01 to 2009-01-01, found 2 of 2 dates to judge it on"):
        run_suite(suite, tmp_path / "runs")


def test_a_missing_weight_file_is_found_before_any_work(tmp_path):
    directory = small_model.saved(tmp_path / "prior")
    (directory / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model.safetensors: no such file, expected a model directory"):
        run_suite(read_suite(written(tmp_path, prior=str(directory))), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_analysis_that_is_not_finite_is_recorded_as_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(LETKF, "analyse", lambda *_: torch.full((2, 29, 48, 96), float("nan")))
    suite = read_suite(written(tmp_path, dates=1), methods=["LETKF"])
    run_suite(suite, tmp_path / "runs")
    (row,) = (row for row in read_results(suite, tmp_path / "runs").to_dict()["rows"] if row["method"] == "LETKF")
    assert row["failed"] == ["the analysis is not finite"]


def test_a_prior_on_another_grid_is_refused_before_any_work(tmp_path):
    directory = small_model.saved(tmp_path / "prior")
    with pytest.raises(ValueError, match=r"prior: found a grid of 16 rows .* expected that of the data, 48 rows"):
        run_suite(read_suite(written(tmp_path, prior=str(directory))), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_data_are_told_apart_by_what_they_hold_not_by_their_place(tmp_path):
    moved, fewer = tmp_path / "moved.nc", tmp_path / "fewer.nc"
    shutil.copy(SAMPLE_ERRORS, moved)
    with xr.open_dataset(SAMPLE_ERRORS, engine="h5netcdf") as errors:
        errors.isel(pair=slice(0, -1)).to_netcdf(fewer, engine="h5netcdf")
    shipped = fingerprint(SampleArchive(), 24)
    assert fingerprint(SampleArchive(statistics=moved), 24) == shipped
    assert fingerprint(SampleArchive(statistics=fewer), 24) != shipped
    assert fingerprint(SampleArchive(), 48) != shipped
