"""A small HTTP server that speaks as much of the OpenAI interface as a test makes it."""

import base64
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """An answer of the server; `drip` sends it byte by byte, with that many seconds between."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0.0


Answering = Callable[[Call], Reply]


@dataclass
class ChatServer:
    """A running server and the calls that it received."""

    url: str
    calls: list[Call] = field(default_factory=list)


def completion(content: str | None, finish_reason: str = "stop", **message: str) -> Reply:
    """A chat completion with one choice."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish_reason,
    }
    return Reply(body=json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


def likeliest(chances: Mapping[str, float]) -> Reply:
    """A chat completion of one token, with these as the likeliest and their probabilities."""
    tokens = [{"token": token, "logprob": math.log(each)} for token, each in chances.items()]
    first = {**tokens[0], "top_logprobs": tokens}
    message = {"role": "assistant", "content": first["token"]}
    choice = {"message": message, "finish_reason": "length", "logprobs": {"content": [first]}}
    return Reply(body=json.dumps({"choices": [choice]}).encode())


def question_in(call: Call) -> str:
    """The text beside the image of a request."""
    (text,) = [part["text"] for part in _content(call) if part["type"] == "text"]
    return str(text)


def image_in(call: Call) -> bytes:
    """The file of the image of a request, which has to be a PNG."""
    (url,) = [part["image_url"]["url"] for part in _content(call) if part["type"] == "image_url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data, validate=True)


def _content(call: Call) -> list[dict[str, Any]]:
    (message,) = call.body["messages"]
    content: list[dict[str, Any]] = message["content"]
    return content


def refusal(status: int, message: str, **headers: str) -> Reply:
    """An error in the usual shape."""
    return Reply(status, json.dumps({"error": {"message": message}}).encode(), headers)


@contextmanager
def chat_server(answer: Answering) -> Iterator[ChatServer]:
    """Serve `answer` on a free port; its url ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            call = Call(self.path, dict(self.headers), json.loads(self.rfile.read(length)))
            server.calls.append(call)
            _send(self, answer(call))

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server = ChatServer(f"http://127.0.0.1:{listening.server_address[1]}/v1")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(reply.body)))
    handler.end_headers()
    pieces = [bytes([byte]) for byte in reply.body] if reply.drip else [reply.body]
    pause = threading.Event()
    try:
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            pause.wait(reply.drip)
    except OSError:
        pass  # the client has had enough
