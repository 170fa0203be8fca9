"""Runs that are killed, resumed, refused or split over processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from genda.checkpoint import load_model, read_tensors
from genda.train import loop, store, train
from genda.train.data import select_times
from genda.train.run import averaged

from . import small


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.write_data(tmp_path_factory.mktemp("data") / "nature.zarr")


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / store.STATE)[0]


def logged(out: Path, key: str) -> list:
    lines = [json.loads(line) for line in (out / store.LOG).read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


@pytest.fixture(scope="module")
def autoencoder(data, tmp_path_factory):
    """A trained autoencoder's model directory."""
    config = small.autoencoder_config(data, tmp_path_factory.mktemp("autoencoder"))
    train(config)
    return config.out / "model"


def configured(kind, data, autoencoder):
    """What makes the configuration of a run from its folder and changes."""
    return {
        "prior": partial(small.config, data),
        "muon": partial(small.config, data, optimiser={"kind": "muon", "warmup_images": 8, "lr": 3e-3}),
        "autoencoder": partial(small.autoencoder_config, data),
        "increments": partial(small.increment_config, data, autoencoder=autoencoder),
    }[kind]


@pytest.mark.parametrize("kind", ["prior", "muon", "autoencoder", "increments"])
def test_a_killed_run_resumes_to_the_same_bits(data, autoencoder, tmp_path, monkeypatch, kind):
    make = configured(kind, data, autoencoder)
    whole = make(out=tmp_path / "whole")
    train(whole)

    killed = make(out=tmp_path / "killed", checkpoint_minutes=0)
    step = loop._step

    def dies_in_step_four(run, *arguments):
        if run.step == 3:
            raise KeyboardInterrupt
        return step(run, *arguments)

    monkeypatch.setattr(loop, "_step", dies_in_step_four)
    with pytest.raises(KeyboardInterrupt):
        train(killed)
    monkeypatch.undo()
    torch.randn(7)  # the caller's own draws must not matter
    train(killed, resume=True)

    expected, found = tensors(whole.out), tensors(killed.out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(whole.out, "loss") == logged(killed.out, "loss")
    assert logged(whole.out, "validation") == logged(killed.out, "validation")
    assert [s for s, _ in logged(killed.out, "loss")] == [1, 2, 3, 4, 5, 6]


def test_sigterm_ends_a_run_with_a_checkpoint(data, tmp_path, monkeypatch):
    config = small.config(data, tmp_path / "run")
    step = loop._step

    def told_in_step_two(run, *arguments):
        if run.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(run, *arguments)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(loop, "_step", told_in_step_two)
    assert train(config).step == 2
    assert signal.getsignal(signal.SIGTERM) is before
    assert (config.out / store.STATE).exists()
    assert train(config, resume=True).images >= config.max_images


WITHOUT_DROPOUT = {
    "prior": {"network": {"base": 8, "multipliers": (1, 2), "blocks": 1}, "static": ("land_sea_mask",)},
    "increments": {"dit": {"patch": 2, "width": 16, "depth": 1, "head": 8}, "static": ("land_sea_mask",)},
}


@pytest.mark.parametrize("kind", ["prior", "increments"])
def test_two_processes_compute_what_one_does(data, autoencoder, tmp_path, kind):
    make = partial(configured(kind, data, autoencoder), architecture=WITHOUT_DROPOUT[kind])
    alone = make(out=tmp_path / "alone")
    train(alone)
    pair = make(out=tmp_path / "pair")
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(json.loads(pair.model_dump_json())))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "genda.cli", "train", str(tmp_path / "pair.yaml")]
    processes = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()[-2000:]
    expected, found = logged(alone.out, "loss"), logged(pair.out, "loss")
    assert [s for s, _ in expected] == [s for s, _ in found]
    torch.testing.assert_close(
        torch.tensor([v for _, v in found]), torch.tensor([v for _, v in expected]), rtol=1e-5, atol=0
    )
    one, two = tensors(alone.out), tensors(pair.out)
    for name in one:
        if name.startswith("denoiser."):
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)


def test_the_trained_model_loads_and_improves_on_its_base(data, tmp_path):
    config = small.config(
        data, tmp_path / "run", max_images=240, log_steps=30, validation={"every_images": 240, "samples": 8}
    )
    run = train(config)
    model = load_model(config.out / "model")
    assert model.channels == small.CHANNELS
    assert set(model.static) == {"land_sea_mask", "sin_latitude"}
    assert model.card["images"] == 240
    assert str(tmp_path) not in (config.out / "model" / "model.json").read_text()
    losses = [value for _, value in logged(config.out, "loss")]
    assert losses[-1] < 1
    x, sigma = torch.randn(2, 2, 8, 16), torch.tensor([0.5, 2.0])
    condition = torch.zeros(2, 2)
    denoiser = run.task.objective.denoiser
    with averaged(run), torch.no_grad():
        torch.testing.assert_close(
            model.denoiser(x, sigma, condition), denoiser(x, sigma, condition), rtol=0, atol=2e-3
        )


def test_a_run_is_not_overwritten_and_not_resumed_as_another(data, tmp_path):
    config = small.config(data, tmp_path / "run")
    train(config)
    with pytest.raises(FileExistsError, match="--resume"):
        train(config)
    with pytest.raises(ValueError, match="seed: found 0, expected 5"):
        train(config.model_copy(update={"seed": 5}), resume=True)
    longer = config.model_copy(update={"max_images": 32})
    train(longer, resume=True)
    assert [s for s, _ in logged(config.out, "loss")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_damaged_checkpoint_is_one_clear_error(data, tmp_path):
    config = small.config(data, tmp_path / "run")
    train(config)
    path = config.out / store.STATE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"state\.safetensors: expected a safetensors file"):
        train(config, resume=True)


def test_reading_from_disk_trains_the_same_network_as_memory(data, tmp_path):
    losses = []
    for storage in ("float32", "disk"):
        config = small.config(data, tmp_path / storage)
        train(config.model_copy(update={"data": config.data.model_copy(update={"storage": storage})}))
        losses.append(torch.tensor([v for _, v in logged(config.out, "loss")]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


def test_a_loss_that_is_not_finite_stops_the_run_with_the_step(data, tmp_path):
    config = small.config(data, tmp_path / "run", optimiser={"lr": 1e30, "warmup_images": 0})
    with pytest.raises(FloatingPointError, match=r"step [2-6]"):
        train(config)
    assert not (config.out / "model").exists()


def test_missing_splits_and_dates_are_named(data):
    with pytest.raises(ValueError, match="no finished times for 'autumn'"):
        select_times(data, "autumn")
    assert len(select_times(data, ("2001-01-02", "2001-01-03"))) == 4
    assert len(select_times(data, "train", limit=5)) == 5
