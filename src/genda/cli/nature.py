"""Commands that make the data of the embedded experiment: the nature run, and what is shipped of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from genda.cli.shared import Commands, Seed

app = Commands()


@app.command("nature-run")
def nature_run(
    out: Annotated[Path, typer.Argument(help="Zarr store to write or to go on with.")],
    years: Annotated[int, typer.Option(min=1, help="Training years; validation and test come on top.")] = 4,
    seed: Seed = 0,
    grid: Annotated[str, typer.Option(help="t21, t31 or t42.")] = "t31",
    members: Annotated[int, typer.Option(min=1, help="Independent training runs, vectorised.")] = 1,
    pairs: Annotated[int, typer.Option(min=0, help="Training dates with imperfect-model backgrounds.")] = 500,
    validation_pairs: Annotated[int, typer.Option(min=0, help="Validation dates with backgrounds.")] = 60,
    test_pairs: Annotated[int, typer.Option(min=0, help="Test dates with backgrounds.")] = 100,
    ensemble: Annotated[
        int, typer.Option(min=0, help="Members about each test and validation background; 0 for none.")
    ] = 16,
    variant: Annotated[str, typer.Option(help="Background recipe: a or b.")] = "b",
    part: Annotated[
        list[str] | None,
        typer.Option(help="Only these parts, for processes side by side: truth-0, source, background-test …"),
    ] = None,
) -> None:
    """Run the general circulation model behind the embedded experiment (needs the extra "nature"); resumable."""
    from genda.forecast.nature_run import nature_run as run

    run(
        out,
        years=years,
        seed=seed,
        grid=grid,
        members=members,
        pairs=pairs,
        validation_pairs=validation_pairs,
        test_pairs=test_pairs,
        ensemble=ensemble,
        variant=variant,
        parts=part,
        progress=sys.stderr.isatty(),
    )


@app.command("sample-case")
def sample_case(
    nature: Annotated[Path, typer.Argument(help="A finished nature run.")],
    out: Annotated[Path, typer.Argument(help="netCDF file to write.")],
    dates: Annotated[int, typer.Option(min=1, help="Test dates.")] = 24,
) -> None:
    """Cut the small shipped case (truth, backgrounds, climatology) out of a nature run."""
    from genda.forecast.sample_case import write_sample_case

    write_sample_case(nature, out, dates=dates)


@app.command("sample-errors")
def sample_errors(
    nature: Annotated[Path, typer.Argument(help="A nature run with training backgrounds.")],
    case: Annotated[Path, typer.Argument(help="The sample case whose backgrounds the ensembles are about.")],
    out: Annotated[Path, typer.Argument(help="netCDF file to write.")],
    pairs: Annotated[int, typer.Option(min=2, help="Training backgrounds.")] = 100,
    ensembles: Annotated[
        Path | None, typer.Option(help="Store with ensembles at the sample case's dates, if not the nature run.")
    ] = None,
    dates: Annotated[int, typer.Option(min=1, help="Dates with an ensemble.")] = 2,
) -> None:
    """Cut the shipped background errors and ensembles, for quick benchmarks, out of a nature run."""
    from genda.forecast.errors import write_errors

    write_errors(nature, case, out, pairs=pairs, ensembles=ensembles, dates=dates)
