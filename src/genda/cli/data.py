"""``genda data``: look at gridded files and make training data of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genda.cli.shared import Commands, Json, emit, progress

app = Commands(help="Look at gridded files and make training data of them.", no_args_is_help=True)
Gridded = Annotated[str, typer.Argument(help="netCDF, GRIB, Zarr, a folder of them, or a URL such as gs://….")]
Channels = Annotated[str, typer.Option(help="all, embedded, era5, or identifiers such as z500,t850,t2m.")]


@app.command("check")
def check(
    location: Gridded,
    samples: Annotated[int, typer.Option(min=1, help="Times whose values are read, evenly spread.")] = 50,
    json_output: Json = False,
) -> None:
    """Say what is in gridded files, and all that keeps them from being used (exit code 2)."""
    from genda.commands.data import check_data

    result, usable = check_data(location, samples)
    emit(result.as_dict(), json_output, result.text)
    if not usable:
        raise typer.Exit(2)


@app.command("prepare")
def prepare(
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
    every: Annotated[
        float | None, typer.Option(min=0.01, help="Hours between times, counted from the first midnight.")
    ] = None,
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

    with progress("preparing") as tick:
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
    emit(result.as_dict(), json_output, result.text)


@app.command("stats")
def stats(
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

    with progress("reading") as tick:
        result = run(location, channels, split, interval, tick)
    emit(result.as_dict(), json_output, result.text)
