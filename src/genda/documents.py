"""Documents that people write, in YAML, and one line on the first thing wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """A pydantic model that refuses unknown keys and says which it knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, document: Any) -> Any:
        unknown = [key for key in document if key not in cls.model_fields] if isinstance(document, dict) else []
        if unknown:
            names = {"key": str(unknown[0]), "expected": ", ".join(cls.model_fields)}
            raise PydanticCustomError("unknown_key", "{key}: unknown key, expected some of {expected}", names)
        return document


class _UniqueKeys(yaml.SafeLoader):
    """A second entry of the same name would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            try:
                twice = key in seen
            except TypeError:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found the key {key!r}", key_node.start_mark
                ) from None
            if twice:
                raise yaml.constructor.ConstructorError(None, None, f"found {key!r} twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | os.PathLike[str], expected: str = "") -> Any:
    """What a YAML file holds; no key twice.

    Args:
        path: the file.
        expected: what it should have been, for the error.

    Raises:
        ValueError: one line naming the file and the place, for anything that is no YAML, or a date that is none.
        FileNotFoundError: where there is no such file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    if Path(path).is_dir():
        raise ValueError(f"{path}: found a directory, expected a file")
    wanted = f"expected YAML{f' ({expected})' if expected else ''}"
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: {wanted}, found bytes that are no text") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a ValueError is of YAML's own dates
        raise ValueError(f"{path}: {wanted}, {' '.join(str(error).split())[:200]}") from None


def first_complaint(error: ValidationError) -> str:
    """One line for a pydantic error: which key, what is wrong, what was found."""
    complaint = error.errors(include_url=False)[0]
    if complaint["type"] == "unknown_key":
        return ".".join(map(str, (*complaint["loc"], complaint["msg"])))
    if complaint["type"] == "value_error":
        place = ".".join(map(str, complaint["loc"]))
        return f"{place}: {complaint['ctx']['error']}" if place else str(complaint["ctx"]["error"])
    key = ".".join(map(str, complaint["loc"])) or "document"
    found = "" if complaint["type"] in ("missing", "json_invalid") else f", found {complaint['input']!r:.80}"
    if complaint["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key}: expected entries of the form 'name: value'{found}"
    return f"{key}: {complaint['msg'].lower()}{found}"
