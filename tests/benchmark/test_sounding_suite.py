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
    "folds": 2,
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
        used, withheld, _, _ = _parted(None, "embedded", 0, int(case), 3.0, 1.0)
        assert not set(used["station"]) & set(withheld["station"])
        held.append(set(withheld["station"]))
    assert not held[0] & held[1]


def test_interpolation_beats_the_climatology_at_withheld_stations(suite, tmp_path):
    run_suite(suite, tmp_path / "runs")
    table = read_results(suite, tmp_path / "runs").table("")
    ratio = table.ratio("interpolation", RMSE).mean
    levels = [table.channels.index(name) for name in ("t500", "u500", "v300", "z500")]
    assert (np.asarray(ratio)[levels] < 0.8).all()


@pytest.mark.parametrize("option", [{"background": True}, {"only": ["somewhere"]}])
def test_options_that_mean_nothing_for_soundings_are_refused(tmp_path, option):
    path = tmp_path / "small.yaml"
    methods = SUITE["methods"] | {"EDM": {"method": "fusion", **option}}
    path.write_text(yaml.safe_dump(SUITE | {"methods": methods}))
    with pytest.raises(ValueError, match=r"small\.yaml: methods\.EDM: found background or only, expected neither"):
        read_suite(path)
