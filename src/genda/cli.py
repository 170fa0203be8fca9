"""The command line: parses, calls the library, prints. Nothing heavy is imported before a command runs.

Exit codes: 0 done, 2 bad input or configuration, 3 data missing, 4 numerical failure. ``--json`` prints one JSON document
on standard output; everything else goes to standard error.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="genda",
    help="Generative data assimilation: ensembles of atmospheric analyses from a background, observations and a learned prior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
observations_app = typer.Typer(help="Read and check observations.", no_args_is_help=True)
app.add_typer(observations_app, name="observations")
data_app = typer.Typer(help="Look at gridded files and make training data of them.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Seed = Annotated[int, typer.Option(help="Members and simulated observations depend on it.")]
Members = Annotated[int, typer.Option(min=1, help="Ensemble size.")]


def main() -> None:
    """Run the command; turn known failures into one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s: %(message)s")
    try:
        app()
    except FileNotFoundError as error:
        _fail(error, 3)
    except (ValueError, OSError) as error:
        _fail(error, 2)
    except FloatingPointError as error:
        _fail(error, 4)
    except ImportError as error:
        _fail(error, 2)


def _fail(error: Exception, code: int) -> None:
    print(f"genda: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory for analysis.nc and report.html.")] = Path("genda-demo"),
    members: Members = 16,
    seed: Seed = 0,
    json_output: Json = False,
) -> None:
    """Analyse the shipped case offline: observations in, an ensemble, a score table and a report out."""
    from genda.demo import run_demo

    with _progress("sampling") as tick:
        result = run_demo(out, members=members, seed=seed, progress=tick)
    _emit(result.as_dict(), json_output, result.text)


@app.command()
def assimilate(
    model: Annotated[str, typer.Option(help="A shipped model's name or a checkpoint directory.")] = "embedded",
    method: Annotated[
        str | None,
        typer.Option(
            help="fusion (default), fusion-sda, fusion-gaussian, optimal-interpolation, unconditional; of a prior of "
            "background errors losda (default), latent-mmps, latent-dps, latent-3d-var, latent-prior, diffda (--model diffda)."
        ),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(help="A forecast of the analysis time, or an ensemble of them, for a prior of background errors."),
    ] = None,
    lead: Annotated[
        int | None, typer.Option(help="Hours of the background, one the prior knows; by default its first.")
    ] = None,
    observations: Annotated[list[Path] | None, typer.Option(help="Observation files of any readable kind.")] = None,
    field: Annotated[
        list[Path] | None, typer.Option(help="Coarse fields or forecasts on their own grid (netCDF).")
    ] = None,
    field_error: Annotated[
        float, typer.Option(help="Error of the fields, in units of each channel's climatological std.")
    ] = 0.05,
    time: Annotated[
        str | None,
        typer.Option(help="Analysis time (ISO); by default that of the field, the background or the observations."),
    ] = None,
    window_hours: Annotated[float, typer.Option(help="Half-width of the observation window.")] = 3.0,
    map_climate: Annotated[
        bool, typer.Option(help="Map the observations to the model's climate first (real data, embedded model).")
    ] = False,
    climate_amplitude: Annotated[
        float, typer.Option(help="Standard deviation of real anomalies in units of the model's, for --map-climate.")
    ] = 1.0,
    members: Members = 16,
    seed: Seed = 0,
    steps: Annotated[
        int | None, typer.Option(min=2, help="Noise levels of the sampler; by default the model's.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="GMRES iterations of MMPS.")] = 3,
    gamma: Annotated[
        float | None,
        typer.Option(min=0.0, help="Gamma of SDA and DPS; by default 0.03 or what a source needs to be stable."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Members at a time; bounds memory, changes nothing else.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="The analysis.")] = Path("analysis.nc"),
    report: Annotated[Path | None, typer.Option(help="Also write a self-contained HTML report.")] = None,
    checks: Annotated[Path | None, typer.Option(help="Quality control: an ordered list of checks (YAML).")] = None,
    errors: Annotated[Path | None, typer.Option(help="Observation errors instead of the defaults (YAML).")] = None,
    vertical_correlation: Annotated[
        float | None, typer.Option(help="Depth in ln p over which a sounding's errors are correlated.")
    ] = None,
    observations_out: Annotated[
        Path | None, typer.Option(help="Write the observations back with flags, hx_b and hx_a (Parquet).")
    ] = None,
    json_output: Json = False,
) -> None:
    """Turn observations, coarse fields and a background into an ensemble of analyses."""
    from genda.commands.assimilate import assimilate_files

    with _progress("sampling") as tick:
        result = assimilate_files(
            model=model,
            method=method,
            background=background,
            lead=lead,
            observations=observations or [],
            fields=field or [],
            field_error=field_error,
            time=time,
            window_hours=window_hours,
            map_climate=map_climate,
            climate_amplitude=climate_amplitude,
            members=members,
            seed=seed,
            steps=steps,
            iterations=iterations,
            gamma=gamma,
            batch=batch,
            device=device,
            out=out,
            report=report,
            checks=checks,
            errors=errors,
            vertical_correlation=vertical_correlation,
            observations_out=observations_out,
            progress=tick,
        )
    _emit(result.as_dict(), json_output, result.text)


@app.command()
def verify(
    analysis: Annotated[Path, typer.Argument(help="An analysis written by genda.")],
    truth: Annotated[Path | None, typer.Option(help="The truth, netCDF or Zarr.")] = None,
    withheld: Annotated[Path | None, typer.Option(help="Observations the analysis never saw (Parquet).")] = None,
    json_output: Json = False,
) -> None:
    """Score an analysis against a truth or against withheld observations."""
    from genda.commands.verify import verify_files

    result = verify_files(analysis, truth, withheld)
    _emit(result.as_dict(), json_output, result.text)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a checkpoint directory.")] = "embedded",
    json_output: Json = False,
) -> None:
    """Say what a checkpoint is: channels, grid, data, seed, images seen, validation loss, how to reproduce it."""
    from genda.commands.inspect import inspect_model

    result = inspect_model(model)
    _emit(result.as_dict(), json_output, result.text)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML configuration.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, dotted keys allowed.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, to the same bits.")] = False,
) -> None:
    """Train a prior, an autoencoder or a prior of background errors; also under torchrun."""
    from genda.train import read_config
    from genda.train import train as run

    logging.getLogger().setLevel(logging.INFO)
    run(read_config(config, overrides or []), resume)


@app.command()
def benchmark(
    suite: Annotated[str, typer.Argument(help="A shipped suite, such as table1 or lorenz96, or a YAML file.")],
    methods: Annotated[str, typer.Option(help="Rows to run, separated by commas; the reference always stays.")] = "all",
    scenario: Annotated[list[str] | None, typer.Option(help="Only this scenario; may be repeated.")] = None,
    dates: Annotated[int | None, typer.Option(help="So many dates instead of the suite's own.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The suite's short form.")] = False,
    reference: Annotated[
        str | None, typer.Option(help="The row that ratios and significance refer to, instead of the suite's own.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run on instead.")] = None,
    runs: Annotated[Path, typer.Option(help="Where finished pairs are kept.")] = Path("runs"),
    data: Annotated[
        Path | None,
        typer.Option(help="A nature run, or ascents for radiosondes; without it what is shipped, enough for --quick."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table as Markdown, and a picture beside it.")] = None,
    json_output: Json = False,
) -> None:
    """Run every method of a suite on the same cases; restartable."""
    from genda.commands.benchmark import run_benchmark

    with _progress(suite) as tick:
        names = [name.strip() for name in methods.split(",")]
        result = run_benchmark(
            suite, names, scenario or [], dates, quick, workers, dask, runs, data, out, reference, tick
        )
    _emit(result.as_dict(), json_output, result.text)


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


@observations_app.command("read")
def observations_read(
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
    json_output: Json = False,
) -> None:
    """Read observations of any supported kind into one checked table."""
    from genda.commands.observations import read_observation_files

    result = read_observation_files(files, out, columns, stations, keep_going)
    _emit(result.as_dict(), json_output, result.text)


@observations_app.command("check")
def observations_check(
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
    _emit(result.as_dict(), json_output, result.text)


@observations_app.command("errors")
def observations_errors(
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
    _emit(result.as_dict(), json_output, result.text)


Gridded = Annotated[str, typer.Argument(help="netCDF, GRIB, Zarr, a folder of them, or a URL such as gs://….")]
Channels = Annotated[str, typer.Option(help="all, embedded, era5, or identifiers such as z500,t850,t2m.")]


@data_app.command("check")
def data_check(
    location: Gridded,
    samples: Annotated[int, typer.Option(min=1, help="Times whose values are read, evenly spread.")] = 50,
    json_output: Json = False,
) -> None:
    """Say what is in gridded files, and all that keeps them from being used (exit code 2)."""
    from genda.commands.data import check_data

    result, usable = check_data(location, samples)
    _emit(result.as_dict(), json_output, result.text)
    if not usable:
        raise typer.Exit(2)


@data_app.command("prepare")
def data_prepare(
    source: Gridded,
    out: Annotated[Path, typer.Argument(help="Zarr store to write or to go on with.")],
    channels: Channels = "all",
    grid: Annotated[str, typer.Option(help="same, gaussian-48x96, regular-121x240, …")] = "same",
    area: Annotated[
        str | None, typer.Option(help="north/west/south/east in degrees: a region cut out of the grid.")
    ] = None,
    method: Annotated[str, typer.Option(help="Of regridding: conservative, bilinear, spectral.")] = "conservative",
    start: Annotated[str | None, typer.Option(help="First date.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date.")] = None,
    every: Annotated[float | None, typer.Option(min=0.01, help="Hours between times, counted from midnight.")] = None,
    train_until: Annotated[
        str | None, typer.Option(help="Last day of training; without it the data's own split, or the first 80 %.")
    ] = None,
    validation_until: Annotated[str | None, typer.Option(help="Last day of validation; the rest is for tests.")] = None,
    gap_days: Annotated[float, typer.Option(min=0.0, help="Days left out between splits.")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run on instead.")] = None,
    json_output: Json = False,
) -> None:
    """Select, regrid and split gridded files into a store that genda train reads; restartable."""
    from genda.commands.data import prepare_data

    with _progress("preparing") as tick:
        result = prepare_data(
            source,
            out,
            channels=channels,
            grid=grid,
            area=area,
            method=method,
            start=start,
            end=end,
            every=every,
            train_until=train_until,
            validation_until=validation_until,
            gap_days=gap_days,
            workers=workers,
            dask=dask,
            progress=tick,
        )
    _emit(result.as_dict(), json_output, result.text)


@data_app.command("stats")
def data_stats(
    location: Gridded,
    channels: Channels = "all",
    split: Annotated[str | None, typer.Option(help="Only this split, such as train.")] = None,
    interval: Annotated[
        float | None, typer.Option(min=0.0, help="Hours between the times of a difference; by default one step.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Mean and standard deviation of every channel and of its changes, area-weighted, in one pass."""
    from genda.commands.data import data_stats as run

    with _progress("reading") as tick:
        result = run(location, channels, split, interval, tick)
    _emit(result.as_dict(), json_output, result.text)


def _emit(document: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(document, indent=2, allow_nan=False) if as_json else text)


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A callback ``(done, total)`` that draws a bar on a terminal, or None where nobody is watching."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()
