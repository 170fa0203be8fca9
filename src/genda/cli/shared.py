"""What commands share: a check of their paths, options that several take, how a result is printed, and a bar on a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Seed = Annotated[int, typer.Option(help="Members and simulated observations depend on it.")]
Members = Annotated[int, typer.Option(min=1, help="Ensemble size.")]

Command = TypeVar("Command", bound=Callable[..., Any])
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE)
"""A path that was a URL: of two slashes only one is left."""


class Commands(typer.Typer):
    """Commands whose paths are on this machine: a URL is refused before anything is done."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Command], Command]:
        """As of Typer."""
        register = super().command(name, **options)

        def registered(function: Command) -> Command:
            @wraps(function)
            def checked(**given: Any) -> Any:
                for option, value in given.items():
                    for path in value if isinstance(value, list) else [value]:
                        if isinstance(path, Path) and (url := _URL.fullmatch(str(path))):
                            found = f"{option.replace('_', ' ')}: found the URL {url[1]}://{url[2]}"
                            expected = "expected a path on this machine (genda data reads stores behind URLs)"
                            raise ValueError(f"{found}, {expected}")
                return function(**given)

            register(checked)
            return function

        return registered


def emit(document: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result as text or as its document; the warnings in it go to standard error, too."""
    for warning in document.get("warnings", ()):
        print(f"genda: warning: {warning}", file=sys.stderr)
    print(json.dumps(document, indent=2, allow_nan=False) if as_json else text)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
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
