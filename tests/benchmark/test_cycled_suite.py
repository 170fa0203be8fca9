"""Cycles of the general circulation model as a suite: at T21, a few days."""

import numpy as np
import pytest
import torch
import yaml

from genda.benchmark import read_results, read_suite, run_suite
from genda.benchmark.kept_cycle import read_cycle, read_turns
from genda.benchmark.runner import pairs
from genda.checkpoint import Architecture, Model, UNetConfig, build_denoiser, build_network, save_model
from genda.diffusion.gaussian import SphericalGaussian
from genda.forecast.backgrounds import plan, write_backgrounds
from genda.forecast.climate import open_nature_run
from genda.forecast.incremental import single_model
from genda.forecast.nature import NatureModel
from genda.forecast.nature_run import integrate
from genda.forecast.store import Run, create_store
from genda.forecast.timeline import Timeline
from genda.state import Normalisation, from_dataset
from genda.variables import EMBEDDED_CHANNELS
from genda.verify import FORECAST_NMSE, NMSE

SUITE = {
    "kind": "cycled",
    "suite": "small",
    "starts": ["2001-02-04"],
    "turns": 3,
    "spin_up": 1,
    "members": 2,
    "pairs": 2,
    "scenarios": {"20 %": [{"kind": "columns", "density": 0.2, "noise": 0.1}]},
    "reference": "free run",
    "methods": {"free run": {"method": "free-run"}, "LETKF": {"method": "letkf", "prior_inflation": 1.5}},
}


def written(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, "found no nature run, expected one with its modal states"),
        ({"spin_up": 3}, "spin_up: found 3, expected fewer than the 3 turns"),
        ({"starts": ["2001-02-04"] * 2}, "starts: found 2001-02-04, 2001-02-04, expected each once"),
        ({"starts": []}, "starts"),
        (
            {"methods": SUITE["methods"] | {"floor": {"method": "latent-floor"}}},
            "methods.floor: found latent-floor, expected a method that assimilates",
        ),
        ({"methods": SUITE["methods"] | {"EDM": {"method": "fusion"}}}, "methods.EDM: .*fusion"),
    ],
)
def test_bad_suites_are_refused_before_any_work(tmp_path, changes, complaint):
    with pytest.raises(ValueError, match="(?s)" + complaint):
        run_suite(read_suite(written(tmp_path, **changes)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_damaged_record_of_a_cycle_is_named(tmp_path):
    file = tmp_path / "2001-02-04T00.turns.npz"
    file.write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"turns\.npz: damaged .* once it is removed the cycle starts again"):
        read_cycle(file, None, EMBEDDED_CHANNELS)


@pytest.fixture(scope="module")
def nature(tmp_path_factory):
    """A nature run of fifteen days a year with training backgrounds, and a prior fitted to its truth, its network untrained."""
    pytest.importorskip("jcm", reason="the general circulation model is an optional extra: genda[nature]")
    folder = tmp_path_factory.mktemp("nature")
    run, model = Run(folder / "n.zarr", Timeline(1, 5, 3, year_days=15, spin_up=5), "t21"), single_model("t21")
    create_store(run, model)
    for stream in (run.timeline.streams[0], run.timeline.streams[2], run.timeline.source):
        integrate(run, [stream], model)
    write_backgrounds(run, plan(run.timeline, {"train": 2}), "train", model)
    truth = from_dataset(open_nature_run(run.out))
    normalisation = Normalisation.fit(truth, harmonics=0)
    base = SphericalGaussian.fit(normalisation.normalise(truth.values, truth.times), truth.grid)
    architecture = Architecture(
        network=UNetConfig(base=8, multipliers=(1, 2), blocks=1, head=None), static=("land_sea_mask",)
    )
    torch.manual_seed(0)
    network = build_network(architecture, len(truth.channels), truth.grid)
    denoiser = build_denoiser(architecture, network, base, torch.zeros(1, *truth.grid.shape)).eval()
    prior = Model(denoiser.requires_grad_(False), normalisation, truth.channels, truth.grid, architecture, {})
    save_model(folder / "prior", prior)
    return run.out, folder / "prior"


class Killed(Exception):
    pass


def test_a_killed_cycle_goes_on_to_the_same_bits_and_observations_help(nature, tmp_path, monkeypatch):
    data, prior = nature
    suite = read_suite(written(tmp_path, prior=str(prior)))
    run_suite(suite, tmp_path / "straight", data)
    advance, calls = NatureModel.advance, 0

    def dying(self, *arguments):
        nonlocal calls
        calls += 1
        if calls in (5, 17):  # in the second turn of the free run, and of the LETKF for its second member
            raise Killed
        return advance(self, *arguments)

    monkeypatch.setattr(NatureModel, "advance", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            run_suite(suite, tmp_path / "killed", data)
    run_suite(suite, tmp_path / "killed", data)
    assert calls == 21  # starts of three days and three turns of three members, and what the deaths cost: 1 and 2
    for one, other in zip(
        pairs(suite, tmp_path / "straight", data), pairs(suite, tmp_path / "killed", data), strict=True
    ):
        with np.load(one.file) as a, np.load(other.file) as b:
            for name in set(a.files) - {"seconds", "peak_mb"}:
                assert (a[name] == b[name]).all(), name
        turns = read_turns(other.file.with_suffix(".turns.npz"), EMBEDDED_CHANNELS)
        assert len(turns.samples) == 3
    table = read_results(suite, tmp_path / "killed", data).table("20 %")
    assert len(table.rows["LETKF"].samples) == 2
    nmse = {
        (name, m.name): float(table.score(name, m).mean[0]) for name in SUITE["methods"] for m in (NMSE, FORECAST_NMSE)
    }
    assert nmse["LETKF", "nmse"] < nmse["LETKF", "forecast_nmse"] < nmse["free run", "nmse"]
    assert nmse["free run", "nmse"] == pytest.approx(nmse["free run", "forecast_nmse"])


def test_cycles_that_leave_their_split_are_refused(nature, tmp_path):
    data, prior = nature
    for changes, complaint in (
        ({"starts": ["2001-02-13"]}, "found 2001-02-16.*expected days of split test alone"),
        ({"starts": ["2001-02-02"]}, "found no modal state"),
        ({"members": 70}, "members: found 70"),
        ({"lead": 36}, "suite small: lead: found 36 h, expected 24 or 48"),
    ):
        suite = read_suite(written(tmp_path, prior=str(prior), **changes))
        with pytest.raises((ValueError, FileNotFoundError), match=complaint):
            run_suite(suite, tmp_path / "runs", data)
    assert not (tmp_path / "runs").exists()
