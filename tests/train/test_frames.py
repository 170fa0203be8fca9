"""Frames read fast are the frames of the general reader, in any order; a batch made ahead changes no bit of a run."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
import zarr
from tests.train.small import CHANNELS, config, write_data

from genda.data.prepare import Preparation, prepare_store
from genda.state import read_state
from genda.train import train
from genda.train.frames import frame_reader


@pytest.fixture
def store(tmp_path):
    source = write_data(tmp_path / "source.zarr")
    times = read_state(source).times
    split = np.where(np.arange(24) < 16, "train", "validation")
    prepare_store(Preparation(str(source), tmp_path / "store.zarr", CHANNELS, None, "conservative", times, split))
    return tmp_path / "store.zarr"


def test_tensorstore_reads_what_xarray_reads(store, caplog):
    pytest.importorskip("tensorstore")
    whole = read_state(store, CHANNELS[::-1])
    order = np.random.default_rng(0).permutation(24)[:10]
    with caplog.at_level(logging.WARNING):
        found = frame_reader(store, CHANNELS[::-1])(whole.times[order])
    torch.testing.assert_close(found, whole.values[torch.from_numpy(order)], rtol=0, atol=0)
    assert not caplog.records


def test_a_store_in_other_units_is_read_in_the_general_way(store, caplog):
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    group["temperature"].attrs["scale_factor"] = 0.5  # CF packing, which only the general way undoes
    group["temperature"][:] = 2 * group["temperature"][:]
    zarr.consolidate_metadata(store)
    with caplog.at_level(logging.WARNING):
        found = frame_reader(store, CHANNELS)(read_state(store).times[3:5])
    torch.testing.assert_close(found, read_state(store, CHANNELS).values[3:5])
    assert "read frame by frame" in caplog.text


def test_a_frame_that_is_not_finite_is_named(store):
    times, read = read_state(store).times, frame_reader(store, CHANNELS)
    zarr.open_group(store, mode="r+", use_consolidated=False)["temperature"][7, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="t850"):
        read(times[5:9])


def test_training_from_disk_is_training_from_memory_whoever_reads(store, tmp_path):
    losses = []
    for name, storage, readers in (("memory", "float32", 1), ("disk", "disk", 1), ("ahead", "disk", 3)):
        run = config(store, tmp_path / name, readers=readers)
        train(run.model_copy(update={"data": run.data.model_copy(update={"storage": storage})}))
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        losses.append([entry["loss"] for entry in log if "loss" in entry])
    assert losses[1] == losses[2]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
