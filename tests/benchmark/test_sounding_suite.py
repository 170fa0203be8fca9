"""Withheld stations of the shipped ascents: parts are disjoint, and assimilation beats the climatology where nothing was seen."""

import numpy as np
import pytest
import yaml

from genda.benchmark import read_results, read_suite, run_suite
from genda.benchmark.experiment import experiment_of
from genda.benchmark.soundings import _parted
from genda.verify import RMSE

SUITE = {
    "kind": "soundings",
    "suite": "small",
    "folds": [0, 1],
    "reference": "climatology",
    "methods": {"climatology": {"method": "climatology"}, "interpolation": {"method": "optimal-interpolation"}},
}


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    return read_suite(path)


def test_withheld_stations_are_not_assimilated_and_are_judged_once(suite):
    held = []
    for case in experiment_of(suite).cases:
        parted = _parted(None, "embedded", 0, int(case), 3, 3.0, 1.0, 0.1)
        used, withheld, first, second = (
            set(part["station"]) for part in (parted.used, parted.withheld, parted.first, parted.second)
        )
        assert not used & withheld
        assert not first & second
        assert first | second == used
        held.append(withheld)
    assert not held[0] & held[1]


def test_interpolation_beats_the_climatology_at_withheld_stations(suite, tmp_path):
    run_suite(suite, tmp_path / "runs")
    table = read_results(suite, tmp_path / "runs").table("")
    ratio = table.ratio("interpolation", RMSE).mean
    levels = [table.channels.index(name) for name in ("t500", "u500", "v300", "z500")]
    assert (np.asarray(ratio)[levels] < 0.8).all()


def test_a_variational_analysis_of_the_other_parts_improves_on_the_background_of_some(suite, tmp_path):
    rows = {"background": {"method": "background"}, "3D-Var": {"method": "latent-gaussian", "model": "diffda"}}
    path = tmp_path / "about.yaml"
    path.write_text(yaml.safe_dump(SUITE | {"folds": [0], "methods": rows, "reference": "background"}))
    about = read_suite(path)
    run_suite(about, tmp_path / "runs")
    results = read_results(about, tmp_path / "runs")
    ratio = np.asarray(results.table("").ratio("3D-Var", RMSE).mean)
    assert np.nanmean(ratio) < 0.97
    assert results.to_markdown().count("| RMSE / background | ") == 5  # one table for each variable, of all levels


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"folds": [0, 0]}, "folds: found 0, 0, expected each once"),
        (
            {"methods": {"LO-SDA": {"method": "losda", "only": ["a"]}}},
            "methods.LO-SDA: found only, ensemble or latent-",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, changes, complaint):
    path = tmp_path / "small.yaml"
    methods = SUITE["methods"] | changes.pop("methods", {})
    path.write_text(yaml.safe_dump(SUITE | changes | {"methods": methods}))
    with pytest.raises(ValueError, match=complaint):
        read_suite(path)


@pytest.mark.parametrize("option", [{"background": True}, {"only": ["somewhere"]}])
def test_options_that_mean_nothing_for_soundings_are_refused(tmp_path, option):
    path = tmp_path / "small.yaml"
    methods = SUITE["methods"] | {"EDM": {"method": "fusion", **option}}
    path.write_text(yaml.safe_dump(SUITE | {"methods": methods}))
    with pytest.raises(ValueError, match=r"small\.yaml: methods\.EDM: found background or only, expected neither"):
        read_suite(path)
