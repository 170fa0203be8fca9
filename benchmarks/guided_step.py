"""Cost of a guided step as a ratio to a bare network forward and vector-Jacobian product of the same batch, in one process.

    python benchmarks/guided_step.py [--model embedded] [--batch 16] [--repeats 7] [--device cpu]

SDA needs exactly one forward and one VJP, so its ratio measures what operators and bookkeeping add (target: at most 1.15).
MMPS with k iterations needs one forward and k VJPs; its bare cost is measured alike. Pairs alternate; the median counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch

from genda.assets import model_directory
from genda.checkpoint import load_model
from genda.diffusion.denoiser import Conditioned
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.problem import Problem
from genda.sources import climatology, coarse_field, field_source
from genda.state import State, season


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model = load_model(model_directory(args.model))
    shape = (len(model.channels), *model.grid.shape)
    time0 = np.datetime64("2006-01-15", "ns")
    denoiser = Conditioned(model.denoiser.to(args.device), season(np.array([time0]))[0])
    state = State(climatology(model, time0).unsqueeze(0), model.channels, model.grid, np.array([time0]))
    problem = Problem(shape, (field_source(model, coarse_field(state, 4), 0.1),))
    x = torch.randn(args.batch, *shape, generator=torch.Generator().manual_seed(0)).to(args.device)
    sigma = torch.full((args.batch,), 0.5, device=args.device)

    def bare(products: int) -> None:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            out = denoiser(leaf, sigma)
            for k in range(products):
                torch.autograd.grad(out, leaf, x, retain_graph=k + 1 < products)

    cases = {
        "sda": (SDA(denoiser, problem, 0.1), 1),
        f"mmps {args.iterations}": (MMPS(denoiser, problem, args.iterations), args.iterations),
        f"mmps {args.iterations}, preconditioned": (
            MMPS(denoiser, problem, args.iterations, preconditioner=model.denoiser.base),
            args.iterations,
        ),
    }
    rows = {}
    for name, (guided, products) in cases.items():
        pairs = []
        for repeat in range(args.repeats + 1):
            seconds = []
            for run in (lambda g=guided: g(x, sigma), lambda p=products: bare(p)):
                if args.device != "cpu":
                    torch.cuda.synchronize()
                started = time.perf_counter()
                run()
                if args.device != "cpu":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - started)
            if repeat:
                pairs.append(seconds)
        rows[name] = {
            "guided_s": round(statistics.median(p[0] for p in pairs), 4),
            "bare_s": round(statistics.median(p[1] for p in pairs), 4),
            "ratio": round(statistics.median(p[0] / p[1] for p in pairs), 3),
        }
    print(
        json.dumps(
            {"batch": args.batch, "device": args.device, "threads": torch.get_num_threads(), "rows": rows}, indent=2
        )
    )


if __name__ == "__main__":
    main()
