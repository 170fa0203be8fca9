r"""The Lorenz suites beside the values recorded in DAPPER's source, in units of their common uncertainty.

    pip install dapper==1.7.1
    genda benchmark SUITE --runs runs
    python benchmarks/lorenz.py SUITE --runs runs [--repeat 4 --rows 'A,B']

SUITE is lorenz63, lorenz96 or lorenz96-windows. DAPPER records one number for each method in the comments of the set-up, read
here from the installed file: the mean over time of the RMSE of one run, to the digits printed. With s the standard error of
genda's mean over n analyses (autocorrelation of its blocks allowed for) and r the unit of the last digit printed, the
difference is given in units of

    u² = s² + s² n / n_D + r² / 12,

the second term being the sampling error of DAPPER's single run of n_D analyses. ``--repeat`` also runs DAPPER itself, with
that many seeds; the standard error is then that of its runs.
"""

from __future__ import annotations

import argparse
import ast
import math
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genda.benchmark import Results, read_results, read_suite
from genda.verify import paired_difference

SETUPS = {
    "lorenz63": "Lorenz63/sakov2012.py",
    "lorenz96": "Lorenz96/sakov2008.py",
    "lorenz96-windows": "Lorenz96/sakov2008.py",
}
SAME = {
    "lorenz63": {
        "climatology": "Climatology()",
        "optimal interpolation": "OptInterp()",
        "3D-Var": "Var3D(xB=0.1)",
        "ETKF 3": "EnKF('Sqrt',N=3,infl=1.30)",
        "ETKF 10": "EnKF('Sqrt',N=10,infl=1.02,rot=True)",
        "EnKF 10": "EnKF('PertObs',N=10,infl=1.04)",
        "EnKF 100": "EnKF('PertObs',N=100,infl=1.01)",
        "particle filter 100": "PartFilt(N=100,reg=2.4,NER=0.3)",
        "particle filter 800": "PartFilt(N=800,reg=0.9,NER=0.2)",
        "particle filter 4000": "PartFilt(N=4000,reg=0.7,NER=0.05)",
    },
    "lorenz96": {
        "climatology": "Climatology()",
        "optimal interpolation": "OptInterp()",
        "3D-Var": "Var3D(xB=0.02)",
        "EnKF 40": "EnKF('PertObs',N=40,infl=1.06)",
        "EnKF 28": "EnKF('PertObs',N=28,infl=1.08)",
        "ETKF 24": "EnKF('Sqrt',N=24,infl=1.013,rot=True)",
        "LETKF 7": "LETKF(N=7,rot=True,infl=1.04,loc_rad=4)",
    },
    "lorenz96-windows": {
        "4D-Var 1": "Var4D(Lag=1,xB=0.2)",
        "4D-Var 2": "Var4D(Lag=2,xB=0.1)",
        "4D-Var 4": "Var4D(Lag=4,xB=0.02)",
    },
}
"""Rows of the suites and the lines of DAPPER's set-ups with the same settings."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SETUPS)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--repeat", type=int, default=0, help="runs of DAPPER itself")
    parser.add_argument("--rows", help="of the table, separated by commas; all where left out")
    parser.add_argument("--line", help="run this line of DAPPER alone, in the suite's set-up, --repeat times")
    args = parser.parse_args()
    if args.line:
        theirs = repeated(args.suite, args.line, args.repeat)
        print(f"{args.line}: {theirs.mean():.3f} ± {theirs.std(ddof=1) / math.sqrt(len(theirs)):.3f}")
        return
    recorded = recorded_errors(args.suite)
    chosen = args.rows.split(",") if args.rows else list(SAME[args.suite])
    results = read_results(read_suite(args.suite, methods=chosen), args.runs)
    analyses = int(setup(args.suite).tseq.masko.sum())
    head = ["method", "DAPPER's line", "genda", "DAPPER, recorded", "difference / u"]
    rows = []
    for name in chosen:
        line = SAME[args.suite][name]
        mean, stderr, count = own_error(results, name)
        value = float(recorded[line])
        digits = len(recorded[line].partition(".")[2])
        u = math.sqrt(stderr**2 * (1 + count / analyses) + 10.0 ** (-2 * digits) / 12)
        row = [name, f"`{line}`", f"{mean:.3f} ± {stderr:.3f}", recorded[line], f"{(mean - value) / u:+.1f}"]
        if args.repeat:
            theirs = repeated(args.suite, line, args.repeat)
            error = theirs.std(ddof=1) / math.sqrt(len(theirs))
            row += [f"{theirs.mean():.3f} ± {error:.3f}", f"{(mean - theirs.mean()) / math.hypot(stderr, error):+.1f}"]
        rows.append(row)
    if args.repeat:
        head += [f"DAPPER, {args.repeat} runs", "difference / u"]
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    print("\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows)))


def recorded_errors(suite: str) -> dict[str, str]:
    """Line of DAPPER's set-up, without blanks, to the number beside it."""
    package = find_spec("dapper")
    if package is None or package.origin is None:
        raise SystemExit("DAPPER is not installed (pip install dapper==1.7.1)")
    text = (Path(package.origin).parent / "mods" / SETUPS[suite]).read_text(encoding="utf-8")
    found = re.findall(r"^#\s*xps \+= (.+?\))\s*# ([\d.]+)", text, flags=re.MULTILINE)
    return {re.sub(r"\s", "", line): value for line, value in found}


def own_error(results: Results, name: str) -> tuple[float, float, int]:
    """Mean, standard error and number of analyses of a row of the suite."""
    statistics = results.rows[""][name].statistics
    if statistics is None:
        raise SystemExit(f"{name}: failed on every case")
    blocks = statistics.values["state_error"].mean(axis=1)
    found = paired_difference(blocks, np.zeros_like(blocks))
    return float(found.difference), float(found.stderr), len(blocks) * results.suite.block


def setup(suite: str) -> Any:
    """DAPPER's set-up."""
    import dapper

    dapper.rc.liveplotting = False
    found = import_module(f"dapper.mods.{SETUPS[suite].removesuffix('.py').replace('/', '.')}").HMM
    if suite == "lorenz96-windows":
        found.tseq.dko = 4
    return found


def repeated(suite: str, line: str, runs: int) -> NDArray[np.float64]:
    """Errors of DAPPER's own runs of one of its lines, one for each seed."""
    import dapper
    from dapper import da_methods

    call = ast.parse(line, mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise SystemExit(f"{line}: expected a method and its settings")
    values = [ast.literal_eval(argument) for argument in call.args]
    settings = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    experiment, errors = setup(suite), []
    for seed in range(1, runs + 1):
        dapper.set_seed(seed)
        truth, observations = experiment.simulate()
        run = getattr(da_methods, call.func.id)(*values, **settings)
        run.assimilate(experiment, truth, observations)
        run.stats.average_in_time()
        errors.append(float(run.avrgs.err.rms.a.val))
    return np.array(errors)


if __name__ == "__main__":
    main()
