"""An A1111-compatible server that really renders, for tests of its clients."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import JobError
from pipeline.job import Control, ImageArray, LoadedImage, RenderRequest
from pipeline.media.image import decode
from pipeline.ports import Renderer

Request = dict[str, Any]


@dataclass
class Server:
    """The server's address, the requests it received, and answers that break the protocol."""

    url: str
    requests: list[Request] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    misbehave: list[Callable[[], tuple[int, bytes]]] = field(default_factory=list)


@contextmanager
def serve(renderer: Renderer) -> Iterator[Server]:
    """A server that renders with `renderer`. Each entry of `misbehave` answers one request."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server = Server(f"http://127.0.0.1:{httpd.server_port}")
    httpd.RequestHandlerClass = _handler(server, renderer)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()


def generated(request: Request, renderer: Renderer) -> bytes:
    """The answer of AUTOMATIC1111's `txt2img` and `img2img`: base64 PNGs, and its `info` as JSON in
    a string.
    """

    def sent(encoded: str) -> LoadedImage:
        return LoadedImage("", decode(base64.b64decode(encoded)))

    units = request.get("alwayson_scripts", {}).get("controlnet", {}).get("args", [])
    control = None
    if units:  # one, as it is sent by us
        unit = units[0]
        control = Control(
            unit["model"],
            sent(unit["image"]),
            unit["weight"],
            unit["guidance_start"],
            unit["guidance_end"],
        )
    seeds = tuple(range(request["seed"], request["seed"] + request["batch_size"]))
    asked = RenderRequest(
        prompt=request["prompt"],
        negative=request["negative_prompt"],
        width=request["width"],
        height=request["height"],
        steps=request["steps"],
        guidance=request["cfg_scale"],
        seeds=seeds,
        image=sent(request["init_images"][0]) if "init_images" in request else None,
        strength=request.get("denoising_strength", 1.0),
        mask=sent(request["mask"]) if "mask" in request else None,
        control=control,
    )
    images = [encode(image) for image in renderer.render(asked)]
    described = {"seed": seeds[0], "all_seeds": seeds}
    if control:  # as the extension does
        images.append(encode(control.image.pixels))
        described["infotexts"] = [f'ControlNet 0: "Module: none, Model: {control.name}"']
    info = json.dumps(described)
    return json.dumps({"images": images, "parameters": request, "info": info}).encode()


def _answer(request: Request, renderer: Renderer) -> tuple[int, bytes]:
    try:
        return 200, generated(request, renderer)
    except JobError as error:
        return 422, json.dumps({"detail": str(error)}).encode()


def encode(image: ImageArray, image_format: str = "PNG") -> str:
    """An image as the server sends it."""
    buffer = io.BytesIO()
    Image.fromarray((image * 255).round().astype(np.uint8)).save(buffer, image_format)
    return base64.b64encode(buffer.getvalue()).decode()


def _handler(server: Server, renderer: Renderer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append(request)
            server.headers.append(dict(self.headers.items()))
            if server.misbehave:
                status, answer = server.misbehave.pop(0)()
            elif self.path == f"/sdapi/v1/{'img' if 'init_images' in request else 'txt'}2img":
                status, answer = _answer(request, renderer)
            else:
                status, answer = 404, b"Not Found"
            with suppress(ConnectionError):  # who asked may have gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    return Handler
