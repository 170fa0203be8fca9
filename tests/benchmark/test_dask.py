"""A suite on a Dask cluster: the numbers of the serial run, and one clear line where there is no cluster to run on."""

import os
import socket
import sys
import threading
import time

import numpy as np
import pytest
import torch

from genda import workers as cluster
from genda.benchmark import read_results, read_suite, run_suite
from genda.benchmark.runner import pairs

distributed = pytest.importorskip("distributed", reason="needs the extra dask")

SUITE = """
kind: toy
suite: small
model: {name: lorenz96, settings: {size: 8}}
interval: 0.05
error: 1.0
start_error: 0.1
turns: 30
burn_in: 10
block: 5
seeds: [1, 2]
reference: EnKF
methods:
  EnKF: {method: enkf, members: 10, inflation: 1.05}
  ETKF: {method: etkf, members: 10, inflation: 1.02}
"""


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Two worker processes whose working directory is another than this process's."""
    here = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        local = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    finally:
        os.chdir(here)
    with local:
        yield local.scheduler_address


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return read_suite(path)


def on_one_thread(suite, directory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run_suite(suite, directory)
    torch.set_num_threads(before)


def test_the_numbers_are_those_of_the_serial_run(workers, suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    on_one_thread(suite, tmp_path / "serial")
    ticks = []
    run_suite(suite, cluster.Path("cluster"), dask=workers, progress=lambda *done: ticks.append(done))
    assert ticks == [(k, 4) for k in range(5)]
    serial, spread = (read_results(suite, tmp_path / name).table("") for name in ("serial", "cluster"))
    for name, row in serial.rows.items():
        for statistic, values in row.values.items():
            np.testing.assert_array_equal(spread.rows[name].values[statistic], values)
    finished = {pair.file: pair.file.stat().st_mtime_ns for pair in pairs(suite, tmp_path / "cluster")}
    run_suite(suite, tmp_path / "cluster", dask="tcp://127.0.0.1:1")  # nothing to do needs no cluster
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert not list((tmp_path / "cluster").glob(".*"))


def test_a_worker_that_does_not_see_the_directory_is_named(workers, suite, tmp_path, monkeypatch):
    """/proc/self/cwd is another folder in every process."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"dask worker tcp://127\.0\.0\.1:\d+: found no directory /proc/self/cwd/runs"):
        run_suite(suite, cluster.Path("/proc/self/cwd/runs"), dask=workers)
    assert not list((tmp_path / "runs").iterdir())


def test_a_scheduler_without_workers_is_given_up(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", processes=False, protocol="tcp") as idle,
        pytest.raises(OSError, match="found no worker within 1 s"),
    ):
        run_suite(suite, tmp_path / "runs", dask=idle.scheduler_address)


def nobody():
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}", None


def someone_else():
    """A server that speaks first, and not Dask."""
    server = socket.create_server(("127.0.0.1", 0))

    def greet():
        while True:
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 4)

    threading.Thread(target=greet, daemon=True).start()
    return f"tcp://127.0.0.1:{server.getsockname()[1]}", server


def silence():
    """A server that takes a connection and says nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    return f"tcp://127.0.0.1:{server.getsockname()[1]}", server


@pytest.mark.parametrize("other", [nobody, someone_else, silence])
def test_where_no_scheduler_answers_the_wait_is_bounded(other, suite, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    address, _server = other()
    started = time.monotonic()
    with pytest.raises(OSError, match=f"dask {address}: found no scheduler that answers within 1 s") as caught:
        run_suite(suite, tmp_path / "runs", dask=address)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("address", ["nonsense", "foo://x:1"])
def test_what_is_no_address_is_refused(address, suite, tmp_path):
    with pytest.raises(ValueError, match=rf"dask {address}: found .*, expected an address such as tcp://host:8786"):
        run_suite(suite, tmp_path / "runs", dask=address)


def test_without_the_package_the_extra_is_named(suite, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*'\.\[dask\]'"):
        run_suite(suite, tmp_path / "runs", dask="tcp://127.0.0.1:1")
