"""``genda observations``: read, check, and estimate errors of observations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genda.cli.shared import Commands, Json, emit

app = Commands(help="Read and check observations.", no_args_is_help=True)


@app.command("read")
def read(
    files: Annotated[
        list[Path], typer.Argument(help="IGRA 2, BUFR, MADIS netCDF (gz, zip), Parquet; others with a map.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    columns: Annotated[
        Path | None, typer.Option(help="Column map (YAML) of CSV, Parquet or netCDF files of any layout.")
    ] = None,
    stations: Annotated[Path | None, typer.Option(help="IGRA's station list, for elevations.")] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Keep the good part of damaged files; what was lost is counted.")
    ] = False,
    since: Annotated[str | None, typer.Option(help="First time to keep (ISO).")] = None,
    until: Annotated[str | None, typer.Option(help="Last time to keep (ISO); a day as a whole.")] = None,
    json_output: Json = False,
) -> None:
    """Read observations of any supported kind into one checked table."""
    from genda.commands.observations import read_observation_files

    result = read_observation_files(files, out, columns, stations, keep_going, since, until)
    emit(result.as_dict(), json_output, result.text)


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="Observation files of any readable kind.")],
    out: Annotated[Path | None, typer.Option(help="Also write the table with its flags (Parquet).")] = None,
    checks: Annotated[
        Path | None, typer.Option(help="An ordered list of checks (YAML); by default all that need nothing else.")
    ] = None,
    background: Annotated[
        Path | None, typer.Option(help="A forecast or analysis (netCDF, Zarr) to compare with: fills hx_b.")
    ] = None,
    errors: Annotated[Path | None, typer.Option(help="Observation errors instead of the defaults (YAML).")] = None,
    json_output: Json = False,
) -> None:
    """Run quality control and count what each check flags."""
    from genda.commands.observations import check_observation_files

    result = check_observation_files(files, out, checks, background, errors)
    emit(result.as_dict(), json_output, result.text)


@app.command("errors")
def estimate(
    files: Annotated[
        list[Path], typer.Argument(help="Tables with hx_b and hx_a (genda assimilate --observations-out).")
    ],
    out: Annotated[Path | None, typer.Option(help="Also write a file of errors (YAML) for --errors.")] = None,
    by_source: Annotated[bool, typer.Option("--by-source", help="Tell sources apart.")] = False,
    fewest: Annotated[int, typer.Option(min=2, help="Departures that a group needs.")] = 30,
    json_output: Json = False,
) -> None:
    """Estimate observation errors from the departures of analyses (Desroziers)."""
    from genda.commands.observations import estimate_errors

    result = estimate_errors(files, out, by_source, fewest)
    emit(result.as_dict(), json_output, result.text)
