"""Work side by side: in processes here, or on a Dask cluster (extra ``dask``), once its scheduler answers and its workers see where
results are kept."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from genda.extras import installing

T = TypeVar("T")

PATIENCE = 15.0
"""Seconds to wait for a scheduler, and again for its first worker."""


def side_by_side(
    function: Callable[[T], None], items: Sequence[T], workers: int, dask: str | None, directory: Path
) -> Iterator[None]:
    """Call a function of each item, each call on one thread of torch where there are several.

    Args:
        function: importable; it keeps what it computes below ``directory``.
        items: its arguments, in order of urgency.
        workers: processes here.
        dask: address of a scheduler to work on instead, see :func:`on_cluster`, also for what is raised.
        directory: absolute.

    Yields:
        None for every finished call.

    Raises:
        OSError: if a process dies.
    """
    if dask is not None:
        yield from on_cluster(function, items, dask, directory)
    elif workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            jobs = [pool.submit(function, item) for item in items]
            try:
                for job in as_completed(jobs):
                    job.result()
                    yield
            except BrokenProcessPool:
                raise OSError(f"workers: one of {workers} processes died, expected memory enough for all") from None
            finally:
                pool.shutdown(cancel_futures=True)  # after an error nothing else is begun
    else:
        for item in items:
            function(item)
            yield


def on_cluster(function: Callable[[T], None], items: Sequence[T], address: str, directory: Path) -> Iterator[None]:
    """Call a function of each item on the workers of a scheduler, each call on one thread of torch.

    Args:
        function: importable on the workers, which keep what it computes below ``directory``.
        items: its arguments, in order of urgency.
        address: of the scheduler, such as ``tcp://host:8786``.
        directory: absolute; created here, and seen under the same name by every worker.

    Yields:
        None for every finished call.

    Raises:
        ModuleNotFoundError: without distributed.
        OSError: if no scheduler or no worker answers, or workers die under a call.
        ValueError: for an address that is none, or a worker that does not see the directory or cannot import genda.
    """
    if not items:
        return
    with _client(address) as client:
        from distributed import KilledWorker, as_completed

        _check_workers(client, address, directory)
        futures = [client.submit(_on_one_thread, function, item, pure=False) for item in items]
        try:
            for future in as_completed(futures, loop=client.loop):
                future.result()
                yield
        except KilledWorker:
            raise OSError(
                f"dask {address}: workers died under a task more than once, expected them to have memory enough"
            ) from None


def _sees(path: Path) -> bool:
    return path.exists()


def _one_thread() -> None:
    torch.set_num_threads(1)


def _on_one_thread(function: Callable[[T], None], item: T) -> None:
    _one_thread()
    function(item)


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"dask: found no package distributed, expected it for a cluster: {installing('dask')}"
        ) from None
    try:
        with ThreadPoolExecutor(1) as thread:  # an event loop may be running in this one
            thread.submit(asyncio.run, _knock(address)).result()
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, MemoryError):  # what is no scheduler may answer with a message of 3 EiB
        raise OSError(
            f"dask {address}: found no scheduler that answers within {PATIENCE:g} s, expected the address of one"
        ) from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"dask {address}: found {error}, expected an address such as tcp://host:8786") from None
    with client:
        yield client


async def _knock(address: str) -> None:
    """Shake hands with a scheduler: a client that meets none holds up the end of the program, and never tires of a silent one."""
    from distributed import Security
    from distributed.comm import connect

    arguments = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, timeout=PATIENCE, **arguments), PATIENCE)
    await comm.close()


def _check_workers(client: Any, address: str, directory: Path) -> None:
    """Every worker there is finds a file that is laid down for it here."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise OSError(f"dask {address}: found no worker within {PATIENCE:g} s, expected at least one") from None
    directory.mkdir(parents=True, exist_ok=True)
    token = directory / f".{uuid.uuid4().hex}.seen"
    token.touch()
    try:
        seen = client.run(_sees, token, on_error="return")
    finally:
        token.unlink()
    for worker, answer in seen.items():
        if isinstance(answer, Exception):
            raise ValueError(
                f"dask worker {worker}: found {answer!r}, expected genda as it is installed here"
            ) from answer
        if not answer:
            raise ValueError(
                f"dask worker {worker}: found no directory {directory}, expected one that all workers share with this machine"
            )
