"""Stores behind URLs: a bucket served here by the protocol of Google's storage, read by the client that reads real ones."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

from genda.files import open_gridded
from genda.state import read_state, to_dataset
from small_model import states

pytestmark = pytest.mark.skipif(find_spec("gcsfs") is None, reason="the extra cloud is not installed")


class Bucket(BaseHTTPRequestHandler):
    """The objects below a folder: listing, what each is, and its bytes, in ranges."""

    root: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        _, _, rest = url.path.partition("/b/")
        _, _, name = rest.partition("/o")
        file = self.root / unquote(name).lstrip("/")
        if name.strip("/") and not file.is_file():
            self._answer(404, b"{}")
        elif name.strip("/") and (url.path.startswith("/download") or query.get("alt") == "media"):
            self._bytes(file.read_bytes())
        elif name.strip("/"):
            self._answer(200, json.dumps(self._about(file)).encode())
        else:
            self._answer(200, json.dumps(self._listed(query.get("prefix", ""), "delimiter" in query)).encode())

    def _about(self, file: Path) -> dict[str, object]:
        name = file.relative_to(self.root).as_posix()
        return {"kind": "storage#object", "name": name, "bucket": "bucket", "size": str(file.stat().st_size)}

    def _listed(self, prefix: str, one_level: bool) -> dict[str, object]:
        files = [f for f in sorted(self.root.rglob("*")) if f.is_file()]
        found = [f for f in files if f.relative_to(self.root).as_posix().startswith(prefix)]
        if not one_level:
            return {"items": [self._about(f) for f in found]}
        rest = {f: f.relative_to(self.root).as_posix()[len(prefix) :] for f in found}
        folders = sorted({prefix + tail.split("/")[0] + "/" for tail in rest.values() if "/" in tail})
        return {"items": [self._about(f) for f, tail in rest.items() if "/" not in tail], "prefixes": folders}

    def _bytes(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            self._answer(200, data)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(data) - int(last)
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        self._answer(206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that is also gs://bucket."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Bucket,), {"root": tmp_path}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    yield tmp_path
    server.shutdown()


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_in_a_bucket_is_the_store_on_disk(bucket, version):
    expected = states(3)
    to_dataset(expected).to_zarr(bucket / "era5.zarr", zarr_format=version, consolidated=version == 2)
    assert open_gridded("gs://bucket/era5.zarr").times.tolist() == expected.times.tolist()
    found = read_state("gs://bucket/era5.zarr", expected.channels)
    np.testing.assert_array_equal(found.values, expected.values)


def test_a_store_that_is_not_in_the_bucket_is_one_line(bucket):
    with pytest.raises(FileNotFoundError, match=r"^gs://bucket/absent\.zarr: no such store$"):
        open_gridded("gs://bucket/absent.zarr")
