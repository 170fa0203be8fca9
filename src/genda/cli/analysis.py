"""Commands that analyse, judge and train."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from genda.cli.shared import Commands, Json, Members, Seed, emit, progress

app = Commands()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory for analysis.nc and report.html.")] = Path("genda-demo"),
    members: Members = 16,
    seed: Seed = 0,
    json_output: Json = False,
) -> None:
    """Analyse the shipped case offline: observations in, an ensemble, a score table and a report out."""
    from genda.demo import run_demo

    with progress("sampling") as tick:
        result = run_demo(out, members=members, seed=seed, progress=tick)
    emit(result.as_dict(), json_output, result.text)


@app.command()
def assimilate(
    model: Annotated[str, typer.Option(help="A shipped model's name or a checkpoint directory.")] = "embedded",
    method: Annotated[
        str | None,
        typer.Option(
            help="fusion (default), fusion-sda, fusion-gaussian, optimal-interpolation, unconditional; of a prior of "
            "background errors losda (default), latent-mmps, latent-dps, latent-3d-var, latent-gaussian, "
            "latent-prior, diffda (--model diffda), and of one that is shown observations phyda (its default), "
            "phyda-plus."
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
        int | None, typer.Option(min=2, help="Noise levels of the sampler; by default the method's.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="GMRES iterations of fusion and latent-mmps (MMPS); by default 3.")
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Gamma of fusion-sda and latent-dps; by default 0.03 or what a source needs to be stable."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Members at a time; bounds memory, changes nothing else.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="The analysis: netCDF, or Zarr where it ends in .zarr.")] = Path(
        "analysis.nc"
    ),
    report: Annotated[Path | None, typer.Option(help="Also write a self-contained HTML report.")] = None,
    checks: Annotated[Path | None, typer.Option(help="Quality control: an ordered list of checks (YAML).")] = None,
    errors: Annotated[Path | None, typer.Option(help="Observation errors instead of the defaults (YAML).")] = None,
    vertical_correlation: Annotated[
        float | None, typer.Option(help="Depth in ln p over which a sounding's errors are correlated.")
    ] = None,
    representativeness: Annotated[
        str | None,
        typer.Option(
            help="What the grid cannot follow, added to errors: a fraction of the climatological std, such as 0.1, or "
            "spacing, by the distance between the grid's rows."
        ),
    ] = None,
    observations_out: Annotated[
        Path | None, typer.Option(help="Write the observations back with flags, hx_b and hx_a (Parquet).")
    ] = None,
    json_output: Json = False,
) -> None:
    """Turn observations, coarse fields and a background into an ensemble of analyses."""
    from genda.commands.assimilate import assimilate_files

    with progress("sampling") as tick:
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
            representativeness=representativeness,
            observations_out=observations_out,
            progress=tick,
        )
    emit(result.as_dict(), json_output, result.text)


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
    emit(result.as_dict(), json_output, result.text)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a checkpoint directory.")] = "embedded",
    json_output: Json = False,
) -> None:
    """Say what a checkpoint is: channels, grid, data, seed, images seen, validation loss, how to reproduce it."""
    from genda.commands.inspect import inspect_model

    result = inspect_model(model)
    emit(result.as_dict(), json_output, result.text)


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

    with progress(suite) as tick:
        names = [name.strip() for name in methods.split(",")]
        result = run_benchmark(
            suite, names, scenario or [], dates, quick, workers, dask, runs, data, out, reference, tick
        )
    emit(result.as_dict(), json_output, result.text)
