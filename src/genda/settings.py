"""Settings by name, as a file or a user gives them: refused where they mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from genda.documents import first_complaint

T = TypeVar("T")


def refuse_unread(method: str, given: Mapping[str, Any], read_by: Mapping[str, Sequence[str]]) -> None:
    """Refuse settings that a method does not read: whoever gives one expects it to matter.

    Args:
        method: its name.
        given: settings by name; None is what was not given.
        read_by: the methods that read each.

    Raises:
        ValueError: naming the first such setting and the methods that read it.
    """
    for name, value in given.items():
        if value is not None and method not in read_by[name]:
            raise ValueError(
                f"{name}: found it with method {method}, expected it with {', '.join(read_by[name])} alone"
            )


def checked_settings(what: str, kind: type[T], given: Mapping[str, Any], known: Sequence[str] = ()) -> T:
    """A dataclass of settings, made from values by name as a file or a user gives them.

    Args:
        what: named in complaints.
        kind: the dataclass.
        given: settings by name.
        known: names to offer; the dataclass's own where empty.

    Raises:
        ValueError: naming a setting that is unknown, of another type, or refused by the dataclass.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in given if name not in names]
    if unknown:
        expected = ", ".join(known or names)
        raise ValueError(f"{what}: found no setting {', '.join(unknown)}, expected some of {expected}")
    try:
        return TypeAdapter(kind).validate_python(dict(given))
    except ValidationError as error:
        raise ValueError(f"{what}: {first_complaint(error)}") from None
