"""Suites: what is refused before any work, restarts, side by side, failures kept in the table."""

import json

import numpy as np
import pytest
import yaml

from genda.benchmark import read_results, read_suite, run_suite, shipped_suites
from genda.benchmark.runner import pairs
from genda.methods.ensemble_kalman import ETKF
from genda.methods.variational import Variational

SUITE = {
    "kind": "toy",
    "suite": "small",
    "model": {"name": "lorenz96", "settings": {"size": 8}},
    "interval": 0.05,
    "error": 1.0,
    "start_error": 0.1,
    "turns": 30,
    "burn_in": 10,
    "block": 5,
    "seeds": [1, 2],
    "reference": "3D-Var",
    "methods": {
        "3D-Var": {"method": "3d-var", "covariance": 0.1},
        "ETKF": {"method": "etkf", "members": 10, "inflation": 1.02},
        "EnKF": {"method": "enkf", "members": 10, "inflation": 1.05},
    },
    "quick": {"seeds": [1]},
}


@pytest.fixture
def small(tmp_path):
    return written(tmp_path)


def written(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SUITE | changes))
    return path


def test_every_shipped_suite_is_valid_in_full_and_short():
    for name in shipped_suites():
        assert read_suite(name).reference in read_suite(name, quick=True).methods


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"methods": {"X": {"method": "magic"}}}, "methods.X.method"),
        ({"reference": "nobody"}, "found 'nobody', expected one of 3D-Var, ETKF, EnKF"),
        ({"methods": {"3D-Var": {"method": "3d-var"}, "E": {"method": "etkf"}}}, "found 1 member, expected at least 2"),
        ({"methods": {"3D-Var": {"method": "4d-var"}}}, "found no window, expected at least 1 interval for 4d-var"),
        (
            {"methods": {"3D-Var": {"method": "letkf", "members": 5, "window": 2}}},
            "3D-Var.window: unknown key for letkf",
        ),
        ({"turns": 12}, "found 12 turns less 10, expected at least one block of 5"),
        ({"error": 0.0}, "error"),
        ({"tunrs": 12}, "tunrs: unknown key"),
    ],
)
def test_a_bad_suite_is_one_line_before_any_work(tmp_path, changes, complaint):
    path = written(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"small\.yaml: ") as caught:
        read_suite(path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_suite_or_method_is_named(small):
    with pytest.raises(ValueError, match="lorenz96"):
        read_suite("nothing")
    with pytest.raises(ValueError, match="methods: found no Magic"):
        read_suite(small, methods=["Magic"])


def test_finished_pairs_are_not_run_again_and_settings_make_other_pairs(small, tmp_path):
    suite, runs = read_suite(small), tmp_path / "runs"
    run_suite(suite, runs)
    files = {pair.file: pair.file.stat().st_mtime_ns for pair in pairs(suite, runs)}
    assert len(files) == 6
    run_suite(suite, runs)
    assert {file: file.stat().st_mtime_ns for file in files} == files
    turned = read_suite(small, reference="ETKF")
    assert {pair.file for pair in pairs(turned, runs)} == set(files)
    ahead, behind = (read_results(s, runs).to_dict()["rows"] for s in (suite, turned))
    assert behind[0]["p"] == pytest.approx(ahead[1]["p"])  # the same difference seen from the other side
    assert behind[1]["p"] is None
    with pytest.raises(ValueError, match="reference: found 'Magic', expected one of 3D-Var, ETKF, EnKF"):
        read_suite(small, reference="Magic")
    other = read_suite(written(tmp_path, error=2.0))
    assert not {pair.file for pair in pairs(other, runs)} & set(files)


def test_processes_give_the_same_numbers(small, tmp_path):
    suite = read_suite(small, quick=True)
    run_suite(suite, tmp_path / "one")
    run_suite(suite, tmp_path / "two", workers=2)
    one, two = (read_results(suite, tmp_path / name).table("") for name in ("one", "two"))
    for name, row in one.rows.items():
        np.testing.assert_allclose(two.rows[name].values["squared_error"], row.values["squared_error"], rtol=1e-9)


def test_results_hold_scores_significance_cost_and_order(small, tmp_path):
    suite = read_suite(small)
    run_suite(suite, tmp_path)
    results = read_results(suite, tmp_path)
    document = json.loads(json.dumps(results.to_dict(), allow_nan=False))
    assert [row["method"] for row in document["rows"]] == ["3D-Var", "ETKF", "EnKF"]
    assert document["suite"] == "small"
    assert document["dates"] == 2
    row = document["rows"][1]
    assert 0 < row["metrics"]["rmse"]["x"]["mean"] < 1
    assert row["metrics"]["rmse"]["x"]["stderr"] > 0
    assert row["seconds"] > 0
    assert row["peak_mb"] > 50
    assert 0 <= row["p"] <= 1
    assert "| ETKF |" in results.to_markdown()


def test_a_method_that_fails_on_one_case_stays_in_the_table(small, tmp_path, monkeypatch):
    suite, works, calls = read_suite(small), ETKF.analyse, []

    def fails_in_the_first_case(self, problem, members, generator):
        calls.append(1)
        members = works(self, problem, members, generator)
        return members * float("nan") if len(calls) == 1 else members

    monkeypatch.setattr(ETKF, "analyse", fails_in_the_first_case)
    run_suite(suite, tmp_path)
    (row,) = (row for row in read_results(suite, tmp_path).to_dict()["rows"] if row["method"] == "ETKF")
    assert row["failed"] == ["turn 0 of the cycle: a member stopped being finite"]
    assert row["samples"] == 4
    assert 0 <= row["p"] <= 1  # on the cases that are left
    assert "1 of 2" in read_results(suite, tmp_path).to_markdown()


def test_the_others_are_compared_with_a_reference_that_failed_on_one_case(small, tmp_path, monkeypatch):
    suite, works, calls = read_suite(small), Variational.analyse, []

    def fails_in_the_first_case(self, problem, members, generator):
        calls.append(1)
        return works(self, problem, members, generator) * (float("nan") if len(calls) == 1 else 1.0)

    monkeypatch.setattr(Variational, "analyse", fails_in_the_first_case)
    run_suite(suite, tmp_path)
    rows = {row["method"]: row for row in read_results(suite, tmp_path).to_dict()["rows"]}
    assert [rows[name]["samples"] for name in SUITE["methods"]] == [4, 8, 8]
    assert len(rows["3D-Var"]["failed"]) == 1
    second = read_results(read_suite(written(tmp_path, seeds=[2])), tmp_path).to_dict()["rows"][1]
    for key in ("ratio", "ratio_stderr"):
        assert rows["ETKF"]["metrics"]["rmse"]["x"][key] == second["metrics"]["rmse"]["x"][key]
    assert rows["ETKF"]["p"] == pytest.approx(second["p"])
