"""Open observation files: plain, gzip or zip, recognised by content, streamed.

Damage is an error unless a reader was given ``on_loss``: then that is called with one line for every part that is lost, and
the good rest is read.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

OnLoss = Callable[[str], None] | None
"""What to do with one line on a part of a file that cannot be read; None raises."""
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What the decompressors raise while they read; an OSError is of gzip, of bzip2 or of the disk itself."""
_UNSUPPORTED = (NotImplementedError, RuntimeError, ValueError, struct.error)
"""What a zip archive raises when it is opened: strange compression, a password, a directory of nonsense."""
_BUFFER = 1 << 16


def refuse(problem: str, on_loss: OnLoss) -> None:
    """Pass one line on what is lost to ``on_loss``.

    Raises:
        ValueError: with that line, where there is none.
    """
    if on_loss is None:
        raise ValueError(problem) from None
    on_loss(problem)


class DamagedArchive(ValueError):
    """One line on a compressed file that breaks off, raised while it is read."""


@contextmanager
def open_binary(path: str | os.PathLike[str], on_loss: OnLoss = None) -> Iterator[io.BufferedReader]:
    """A buffered binary stream of a file's content, decompressed on the way.

    Args:
        path: the file.
        on_loss: takes the news that the rest of a compressed file is lost; the stream ends there then.

    Raises:
        ValueError: for a URL, a directory, an empty or damaged file, or a zip archive that doesn't hold exactly one file.
        DamagedArchive: while reading.
        FileNotFoundError: where there is no such file.
    """
    if _URL.match(os.fspath(path)):
        raise ValueError(f"{path}: found a URL, expected a file on this machine: download it first")
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not Path(path).is_file():
        raise ValueError(f"{path}: found a directory, expected a file")
    with ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        magic = raw.peek(4)[:4]
        if not magic:
            raise ValueError(f"{path}: found an empty file, expected observations")
        if magic[:2] == b"\x1f\x8b":
            yield _salvaging(stack.enter_context(gzip.open(raw)), path, on_loss)
        elif magic == b"PK\x03\x04":
            yield _salvaging(_only_member(raw, path, stack), path, on_loss)
        else:
            yield raw


def _only_member(raw: IO[bytes], path: str | os.PathLike[str], stack: ExitStack) -> IO[bytes]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(raw))
        names = [info for info in archive.infolist() if not info.is_dir()]
        if len(names) == 1:
            return stack.enter_context(archive.open(names[0]))
    except (*_DAMAGE, *_UNSUPPORTED) as error:
        raise ValueError(f"{path}: found a damaged or unsupported archive ({error}), expected gzip or zip") from None
    raise ValueError(f"{path}: found {len(names)} files in the archive, expected one")


class _Salvaged(io.RawIOBase):
    """A stream that ends where its archive is damaged, which is an error where nobody is to know of losses."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, path: str | os.PathLike[str], on_loss: OnLoss) -> None:
        self._stream, self._path, self._on_loss, self._ended = stream, path, on_loss, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._ended:
            return 0
        try:
            data = self._stream.read1(len(buffer))  # type: ignore[union-attr]
        except _DAMAGE as error:
            self._ended = True
            problem = f"{self._path}: found a damaged archive ({error}), expected more: the rest is lost"
            if self._on_loss is None:
                raise DamagedArchive(problem) from None
            self._on_loss(problem)
            return 0
        buffer[: len(data)] = data
        return len(data)


def _salvaging(stream: IO[bytes] | gzip.GzipFile, path: str | os.PathLike[str], on_loss: OnLoss) -> io.BufferedReader:
    return io.BufferedReader(_Salvaged(stream, path, on_loss), _BUFFER)


def shown(text: bytes) -> str:
    """Bytes for an error message: one short printable line."""
    cut = text[:40].decode("ascii", "replace")
    return repr(cut) + ("…" if len(text) > 40 else "")
