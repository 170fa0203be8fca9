"""Open observation files: plain, gzip or zip, recognised by content, streamed."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, NotImplementedError, RuntimeError)


@contextmanager
def open_binary(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """A buffered binary stream of a file's content, decompressed on the way.

    Raises:
        ValueError: for a directory, an empty or damaged file, or a zip archive that doesn't hold exactly one file;
            also where the damage shows only while reading.
        FileNotFoundError: where there is no such file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not Path(path).is_file():
        raise ValueError(f"{path}: found a directory, expected a file")
    try:
        with open(path, "rb") as raw:
            magic = raw.peek(4)[:4]
            if not magic:
                raise ValueError(f"{path}: found an empty file, expected observations")
            if magic[:2] == b"\x1f\x8b":
                with gzip.open(raw) as stream:
                    yield _buffered(stream)
            elif magic == b"PK\x03\x04":
                with zipfile.ZipFile(raw) as archive:
                    names = [info for info in archive.infolist() if not info.is_dir()]
                    if len(names) != 1:
                        raise ValueError(f"{path}: found {len(names)} files in the archive, expected one")
                    with archive.open(names[0]) as member:
                        yield _buffered(member)
            else:
                yield raw
    except _DAMAGE as error:
        raise ValueError(f"{path}: found a damaged or unsupported archive ({error}), expected gzip or zip") from None


def _buffered(stream: IO[bytes] | gzip.GzipFile) -> io.BufferedReader:
    return io.BufferedReader(stream)  # type: ignore[arg-type]


def shown(text: bytes) -> str:
    """Bytes for an error message: one short printable line."""
    cut = text[:40].decode("ascii", "replace")
    return repr(cut) + ("…" if len(text) > 40 else "")
