"""A small Hugging Face hub: one model out of a folder."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "beef"


@contextmanager
def hub_server(folder: Path) -> Iterator[str]:
    """Serve the files of a folder as every model; yields a value for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    files = [path for path in folder.iterdir() if path.is_file()]
    tree = [
        {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _oid(f)} for f in files
    ]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if "/resolve/" in self.path:
                asked = folder / self.path.rpartition("/")[2]
                self._answer(asked.read_bytes(), {"ETag": f'"{_oid(asked)}"'})
            else:
                known = tree if "/tree/" in self.path else {"id": "org/name", "sha": COMMIT}
                self._answer(json.dumps(known).encode(), {"Content-Type": "application/json"})

        do_HEAD = do_GET  # noqa: N815 - the base class looks for it

        def _answer(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            told = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
            for name, value in (told | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    return Handler


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
