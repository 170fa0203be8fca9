"""Cost and peak memory of the ensemble filters, one case a process.

    python benchmarks/filters.py columns [--members 40] [--density 0.02] [--radius 3e6] [--repeats 5]
    python benchmarks/filters.py ring [--method enkf|letkf] [--size 1000000] [--members 20] [--every 10] [--repeats 3]

``columns``: LETKF on 29 channels at 48×96, columns of all channels at a share of the grid points with errors of 0.1. Beside it
the batched eigendecomposition of as many N × N matrices alone, which no transform filter at every point can do without.

``ring``: one cycle of Lorenz-96 (a step of 0.05 and an analysis of every ``every``-th variable, unit error) beside the forecast
alone. Seconds are medians after one turn that does not count; the peak is the process's own, imports included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from genda import assimilation as library
from genda.cycle import cycle
from genda.forecast.lorenz import Lorenz96
from genda.linalg import Diagonal
from genda.methods.ensemble_kalman import EnKF
from genda.methods.letkf import LETKF
from genda.methods.localisation import Localisation, ring, sphere
from genda.observations.networks import columns_table, random_columns
from genda.observations.operators import LinearOperator
from genda.problem import Problem, Source
from genda.sources import point_operator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = parser.add_subparsers(dest="case", required=True)
    columns = cases.add_parser("columns")
    columns.add_argument("--model", default="embedded")
    columns.add_argument("--members", type=int, default=40)
    columns.add_argument("--density", type=float, default=0.02)
    columns.add_argument("--radius", type=float, default=3e6, help="of the taper's support, m")
    columns.add_argument("--repeats", type=int, default=5)
    turns = cases.add_parser("ring")
    turns.add_argument("--method", choices=("enkf", "letkf"), default="enkf")
    turns.add_argument("--size", type=int, default=1_000_000)
    turns.add_argument("--members", type=int, default=20)
    turns.add_argument("--every", type=int, default=10)
    turns.add_argument("--radius", type=float, default=20.0, help="of the taper's support, variables")
    turns.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    found = on_columns(args) if args.case == "columns" else on_ring(args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({**vars(args), "threads": torch.get_num_threads(), **found, "peak_gb": round(peak, 2)}, indent=2))


def on_columns(args: argparse.Namespace) -> dict[str, float]:
    model, generator = library.load(args.model), torch.Generator().manual_seed(0)
    shape = (len(model.channels), *model.grid.shape)
    sites = random_columns(model.grid, args.density, np.random.default_rng(0))
    table = columns_table(sites, model.channels, np.datetime64("2006-01-15"))
    operator, _ = point_operator(model, table)
    members = torch.randn(args.members, *shape, generator=generator)
    truth = torch.randn(1, *shape, generator=generator)
    values = operator(truth)[0] + 0.1 * torch.randn(len(operator), generator=generator)
    source = Source(values, operator, Diagonal(torch.full_like(values, 0.1**2)))
    problem = Problem(shape, (source,), ensemble=members)
    method = LETKF(Localisation(sphere(model.grid), args.radius))
    white = torch.randn(shape[1] * shape[2], args.members, args.members, generator=generator)
    matrices = white @ white.mT
    analysis, eigen = alternately(
        args.repeats,
        lambda: method.analyse(problem, args.members, generator),
        lambda: torch.linalg.eigh(matrices),
    )
    return {"observations": len(operator), **compared("analysis", analysis, "eigendecomposition", eigen)}


def on_ring(args: argparse.Namespace) -> dict[str, float]:
    model, generator = Lorenz96(args.size), torch.Generator().manual_seed(0)
    seen = np.arange(0, args.size, args.every)
    matrix = sp.csr_array((np.ones(len(seen)), (np.arange(len(seen)), seen)), shape=(len(seen), args.size))
    operator = LinearOperator(matrix, model.shape)
    truth = model.forcing + torch.randn(1, *model.shape, generator=generator, dtype=torch.float64)
    values = operator(truth)[0] + torch.randn(len(seen), generator=generator, dtype=torch.float64)
    sources = (Source(values, operator, Diagonal(torch.ones_like(values))),)
    start = truth + torch.randn(args.members, *model.shape, generator=generator, dtype=torch.float64)
    method = EnKF() if args.method == "enkf" else LETKF(Localisation(ring(args.size), args.radius))
    turn, forecast = alternately(
        args.repeats,
        lambda: next(cycle(model, method, start, [sources], 0.05, generator)),
        lambda: model.step(start, 0.05),
    )
    return {"observations": len(seen), **compared("cycle", turn, "forecast", forecast)}


def alternately(repeats: int, *runs: Callable[[], object]) -> Tensor:
    """CPU and wall seconds of each run, (run, 2, repeat), taken in turn; the first turn is left out."""
    seconds = torch.zeros(len(runs), 2, repeats + 1, dtype=torch.float64)
    for repeat in range(repeats + 1):
        for k, run in enumerate(runs):
            started = time.process_time(), time.perf_counter()
            run()
            seconds[k, :, repeat] = torch.tensor([time.process_time() - started[0], time.perf_counter() - started[1]])
    return seconds[..., 1:]


def compared(name: str, seconds: Tensor, peer: str, peers: Tensor) -> dict[str, float]:
    found = {
        f"{who}_{what}_s": statistics.median(values.tolist())
        for who, both in ((name, seconds), (peer, peers))
        for what, values in zip(("cpu", "wall"), both, strict=True)
    }
    found["ratio"] = statistics.median((seconds[0] / peers[0]).tolist())
    return {key: round(value, 3) for key, value in found.items()}


if __name__ == "__main__":
    main()
