"""Rows on a prior of background errors, on the shipped sample case with a small prior fitted to the shipped errors."""

import json

import numpy as np
import pytest
import torch
import yaml

import small_latent
from genda import assimilation as library
from genda.benchmark import read_results, read_suite, run_suite
from genda.benchmark.archive import open_archive
from genda.benchmark.experiment import experiment_of
from genda.benchmark.latent import latent_model_of, weights_of
from genda.benchmark.runner import pairs
from genda.latent_model import save_latent_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A prior in the units of the shipped one, and one in other units."""
    folder = tmp_path_factory.mktemp("models")
    prior = library.load_prior("embedded")
    errors = open_archive(None, "test").errors(24, 100) / prior.normalisation.std.view(-1, 1, 1)
    errors = -(errors - errors.mean(dim=0)).float()
    model = small_latent.latent_model(prior.channels, prior.grid, prior.normalisation, errors, 24, 400)
    save_latent_model(folder / "losda", model)
    halved = type(prior.normalisation)(prior.normalisation.mean, 0.5 * prior.normalisation.std)
    other = small_latent.latent_model(prior.channels, prior.grid, halved, 2 * errors, 24, 10)
    save_latent_model(folder / "other", other)
    return folder


def written(folder, models, **changes):
    sampler = {"steps": 8}
    row = {"method": "losda", "model": str(models / "losda"), "sampler": sampler}
    document = {
        "kind": "twin",
        "suite": "small",
        "lead": 24,
        "dates": 1,
        "pairs": 100,
        "members": 4,
        "ensembles": True,
        "scenarios": {"2 %": [{"kind": "columns", "density": 0.02, "noise": 0.1}]},
        "reference": "background",
        "methods": {
            "background": {"method": "background"},
            "LO-SDA": row,
            "LO-SDA ensemble": row | {"ensemble": {"radius": 6e6}},
            "latent MMPS": row | {"method": "latent-mmps", "iterations": 1},
            "latent DPS": row | {"method": "latent-dps"},
            "latent 3D-Var": {"method": "latent-3d-var", "model": str(models / "losda")},
            "latent floor": {"method": "latent-floor", "model": str(models / "losda")},
        },
    } | changes
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_latent_rows_are_scored_with_their_fit_to_the_observations(models, tmp_path):
    suite = read_suite(written(tmp_path, models))
    run_suite(suite, tmp_path / "runs")
    results = read_results(suite, tmp_path / "runs")
    rows = {row["method"]: row for row in results.to_dict()["rows"]}
    assert not any(row["failed"] for row in rows.values())
    ratio = {name: row["metrics"]["nmse"]["all"]["ratio"] for name, row in rows.items()}
    assert ratio["LO-SDA ensemble"] < ratio["LO-SDA"] < 0.85
    assert ratio["latent floor"] < 0.25
    assert ratio["latent DPS"] < 1.3  # stable, if no analysis yet after eight steps
    assert ratio["LO-SDA"] < ratio["latent MMPS"] < ratio["latent 3D-Var"] < 1
    for name in ("LO-SDA", "LO-SDA ensemble"):
        assert rows[name]["metrics"]["chi_square"]["all"]["mean"] == pytest.approx(1, abs=0.35)
        ranks = list(rows[name]["ranks"].values())
        assert ranks
        assert all(sum(row) == pytest.approx(len(row)) for row in ranks)  # in units of a flat histogram
    assert not rows["background"]["ranks"]
    assert "Misfit of members to observations" in results.to_markdown()


def test_other_weights_are_another_pair_and_other_rows_are_not(models, tmp_path):
    first = read_suite(written(tmp_path, models))
    spec = first.methods["LO-SDA"]
    assert len(set(weights_of(spec))) == 3
    assert weights_of(spec) != weights_of(spec.model_copy(update={"model": str(models / "other")}))
    fewer = read_suite(written(tmp_path, models, methods={"background": {"method": "background"}}))
    shared = {pair.file for pair in pairs(fewer, tmp_path)}
    assert shared < {pair.file for pair in pairs(first, tmp_path)}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"model": "other"}, "other: found a model of other channels, grid or climatology"),
        ({"model": "nothing"}, "found neither a shipped model"),
        ({"optimisation": {"evry": 2}}, "found no setting evry, expected some of every, last"),
        ({"optimisation": {"metric": "strict"}}, "found metric 'strict' with gauss-newton"),
        ({"optimisation": {"every": 0}}, "schedule: found every 0"),
        ({"optimisation": {"every": 2}}, "schedule: found multistep with every 2, last 1, expected multistep: false"),
        ({"optimisation": {"kind": "newton"}}, "optimisation: kind: .* found 'newton'"),
        ({"optimisation": {"rate": 0.0}}, "optimisation: optimiser: found rate 0"),
        ({"optimisation": {"reach": "far"}}, "optimisation: reach: .* found 'far'"),
        ({"sampler": {"schedule": "linear"}}, "sampler: schedule: .* found 'linear'"),
        ({"sampler": {"steps": 0}}, "sampler: found 0 steps"),
        ({"sampler": {"stepz": 3}}, "sampler: found no setting stepz"),
        ({"method": "diffda"}, "diffda: found a latent of kind linear"),
        ({"ensemble": {"radius": 0}}, "radius"),
        ({"only": ["3 %"]}, "only: found none of the scenarios"),
    ],
)
def test_bad_rows_are_refused_before_any_work(models, tmp_path, row, complaint):
    spec = {"method": "losda", "model": "losda"} | row
    spec["model"] = str(models / spec["model"]) if spec["model"] != "nothing" else "nothing"
    methods = {"background": {"method": "background"}, "LO-SDA": spec}
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        run_suite(read_suite(written(tmp_path, models, methods=methods)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_prior_of_background_errors_is_not_judged_on_its_training_dates(models, tmp_path):
    path = models / "losda" / "model.json"
    before = path.read_text()
    try:
        document = json.loads(before)
        document["training"] = {"first_time": "2001-01-01", "last_time": "2030-01-01"}
        path.write_text(json.dumps(document))
        latent_model_of.cache_clear()
        with pytest.raises(ValueError, match="losda: trained on 2001-01-01 to 2030-01-01, found 1 of 1 dates"):
            run_suite(read_suite(written(tmp_path, models)), tmp_path / "runs")
    finally:
        path.write_text(before)
        latent_model_of.cache_clear()


def test_the_background_of_a_latent_row_is_the_raw_one(models, tmp_path):
    prior = {
        "method": "latent-prior",
        "model": str(models / "losda"),
        "sampler": {"steps": 4, "antithetic": True},
        "members": 8,
    }
    suite = read_suite(written(tmp_path, models, methods={"background": {"method": "background"}, "prior": prior}))
    experiment = experiment_of(suite)
    truth = experiment._archive.truth(np.datetime64(experiment.cases[0], "ns"))
    samples = experiment._members(suite.methods["prior"], "2 %", truth)
    background = experiment._members(suite.methods["background"], "2 %", truth)[0]
    assert float((samples.mean(dim=0) - background).square().mean()) < 1e-6  # one without its mean error is 6e-4 away
    assert torch.isfinite(samples).all()
