"""An S3 server that gives prepared answers, and calls of a store that speaks to it."""

import json
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.errors import StoreError
from pipeline.storage.s3 import S3Store

ACCESS_KEY, SECRET_KEY = "AKIAPRESSRUNTEST", "the-secret-key-of-the-tests"
CUT_SHORT = b"[...]"
"""The end of a body of which the last byte never comes."""
DATE = "Thu, 01 Jan 2026 00:01:00 GMT"

Answer = tuple[int, str]
"""A status, and the code of an S3 error or the body of a success."""


class S3Script:
    """A server that answers each request with the next of its answers, the last one forever."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers, self.requests = answers, list[Any]()

    def next(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        size = int(handler.headers.get("content-length", 0))
        self.requests.append((handler.command, dict(handler.headers), handler.rfile.read(size)))
        status, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status < 400:
            return status, text.encode()
        echo = json.dumps(dict(handler.headers))
        return status, f"<Error><Code>{text}</Code><Message>{echo}</Message></Error>".encode()


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[str, S3Script]]:
    script = S3Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, body = script.next(self)
            self.send_response_only(status)
            self.send_header("Date", DATE)
            self.send_header("ETag", '"etag"')
            self.send_header("Content-Length", str(len(body) + body.endswith(CUT_SHORT)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - names that the base class looks for

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", script
    finally:
        server.shutdown()
        server.server_close()


def put(store: S3Store, data: bytes = b"data", *, new: bool = False) -> bool:
    return store.put("key", data, content_type="text/plain", new=new)


def refusal(call: Callable[[], object]) -> str:
    """The StoreError's message; sees to it that no key stands in it or in its traceback."""
    with pytest.raises(StoreError) as caught:
        call()
    whole = "".join(traceback.format_exception(caught.value))
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret not in whole
    return str(caught.value)
