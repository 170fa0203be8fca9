"""The command line: parses, calls the library, prints. Nothing heavy is imported before a command runs.

Exit codes: 0 done, 2 bad input or configuration, 3 data missing, 4 numerical failure. ``--json`` prints one JSON document
on standard output; everything else goes to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer

from genda import __version__
from genda.cli import analysis, data, nature, observations

SPINS = "1000"
"""How often a thread of PyTorch's looks whether the others are done before it sleeps, where the user says nothing. By default it
keeps its core busy for milliseconds at every operation: beside other work on the same cores that is eight times slower."""

_UsageError: Any = typer.BadParameter.__base__
"""Whichever click typer stands on, its own or the package."""


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"genda {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="genda",
    help="Generative data assimilation: ensembles of atmospheric analyses from a background, observations and a learned prior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's tables cut the names of options at 80 columns
)
app.add_typer(analysis.app)
app.add_typer(nature.app)
app.add_typer(observations.app, name="observations")
app.add_typer(data.app, name="data")


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which genda this is.")
    ] = False,
) -> None:
    """What goes before any command; its help is that of the program."""


def main() -> None:
    """Run the command; turn known failures, wrong usage among them, into one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s: %(message)s")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when PyTorch is imported, which is later
    try:
        code = app(standalone_mode=False)  # otherwise wrong usage is drawn as a box
    except typer.Abort:
        sys.exit(1)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help is its message
            error.show()
            sys.exit(2)
        where = error.ctx.command_path if error.ctx else "genda"
        _fail(ValueError(f"{error.format_message()} ({where} --help)"), 2)
    except FileNotFoundError as error:
        _fail(error, 3)
    except (ValueError, OSError) as error:
        _fail(error, 2)
    except FloatingPointError as error:
        _fail(error, 4)
    except ImportError as error:
        _fail(error, 2)
    else:
        if code:
            sys.exit(code)


def _fail(error: Exception, code: int) -> None:
    print(f"genda: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)
