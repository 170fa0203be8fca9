"""Packages that only some commands need, and how they are installed: from genda's own folder, since no index has it."""

from __future__ import annotations

import importlib.util


def installing(extra: str) -> str:
    """What to type for an extra of ``pyproject.toml``, in words that end an error's line."""
    return f"pip install -c constraints.txt '.[{extra}]' in genda's folder"


def require(module: str, extra: str, what: str) -> None:
    """Refuse ``what`` at once where a module that it needs is not installed.

    Raises:
        ModuleNotFoundError: one line that says how to install it.
    """
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{what} needs {module}, which is not installed: {installing(extra)}", name=module)
