"""How the A1111 renderer asks, and what it does with answers that are not what it asked for."""

import base64
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline import http
from pipeline.errors import JobError, Refused, Unavailable
from pipeline.job import Control, ImageArray, LoadedImage, Lora, RenderRequest, TextualInversion
from pipeline.ports import Pruner
from pipeline.profile import A1111Profile
from pipeline.rendering.a1111 import A1111Renderer, request_body, rows_of_seeds
from pipeline.telemetry import metered
from tests.harness.a1111_server import Server, encode, generated, serve


class Noise:
    """A renderer whose image is the noise of the seed."""

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        return [noise(seed) for seed in request.seeds]


def noise(seed: int, size: int = 16) -> ImageArray:
    values = np.random.default_rng(seed).integers(0, 256, (size, size, 3))
    return (values / 255).astype(np.float32)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Noise()) as running:
        yield running


def client(server: Server, auth: str = "", **settings: Any) -> A1111Renderer:
    profile = A1111Profile.model_validate({"batch": 4, "timeout": 5} | settings)
    return A1111Renderer(server.url + "/", auth, profile)


def a_request(*seeds: int) -> RenderRequest:
    return RenderRequest(
        prompt="a circle", negative="a star", width=16, height=16, steps=5, guidance=4, seeds=seeds
    )


def answer(*images: str, seeds: Sequence[int] = ()) -> bytes:
    info = json.dumps({"all_seeds": list(seeds)})
    return json.dumps({"images": images, "info": info}).encode()


def test_an_order_is_asked_for_in_the_servers_words(server: Server) -> None:
    asked = client(server, auth="ann:secret", model="sdxl.safetensors", scheduler="Euler a")
    with metered() as meter:
        images = asked.render(a_request(7, 8))
    assert [np.array_equal(p, noise(s)) for s, p in zip((7, 8), images, strict=True)]
    sent = server.requests[0]
    assert sent["override_settings"]["sd_model_checkpoint"] == "sdxl.safetensors"
    assert sent["sampler_name"] == "Euler a"
    assert (sent["seed"], sent["batch_size"], sent["cfg_scale"]) == (7, 2, 4)
    assert sent["save_images"] is False
    token = base64.b64encode(b"ann:secret").decode()
    assert {k.lower(): v for k, v in server.headers[0].items()}["authorization"] == f"Basic {token}"
    assert meter.device["renderer"] > 0


def test_seeds_that_do_not_count_up_are_asked_for_apart(server: Server) -> None:
    seeds = (1, 2, 9, 2**32 - 1, 0, 3, 4, 5, 6, 7)
    images = client(server).render(a_request(*seeds))
    assert [(r["seed"], r["batch_size"]) for r in server.requests] == [
        (1, 2),
        (9, 1),
        (2**32 - 1, 1),
        (0, 1),
        (3, 4),
        (7, 1),
    ]
    assert all(np.array_equal(p, noise(s)) for s, p in zip(seeds, images, strict=True))


def test_no_seeds_are_no_requests() -> None:
    assert list(rows_of_seeds((), 4)) == []


class Controlled(Noise):
    """A renderer that keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[RenderRequest] = []

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        self.requests.append(request)
        return super().render(request)


CONTROLS = {"controls": {"scribble": {"model": "control_scribble", "preprocessor": "invert"}}}


def test_a_control_image_is_sent_as_the_controlnet_reads_it() -> None:
    control = Control("scribble", LoadedImage("a", noise(1)), 0.5, 0.1, 0.9)
    asked = a_request(3, 4).model_copy(update={"control": control})
    nothing = a_request(3).model_copy(update={"control": replace(control, scale=0.0)})
    with serve(renderer := Controlled()) as server, metered() as meter:
        images = client(server, **CONTROLS).render(asked)
        client(server, **CONTROLS).render(nothing)
    assert [np.array_equal(p, noise(s)) for s, p in zip((3, 4), images, strict=True)]
    sent, none = (request.control for request in renderer.requests)
    assert sent
    assert (sent.name, sent.scale, sent.first, sent.until) == ("control_scribble", 0.5, 0.1, 0.9)
    assert np.allclose(sent.image.pixels, 1 - noise(1), atol=1e-6)
    assert none is None
    assert meter.notices == []


def test_a_controlnet_that_the_server_does_not_use_or_know_is_said(server: Server) -> None:
    control = Control("scribble", LoadedImage("a", noise(1)))
    asked = a_request(3).model_copy(update={"control": control})
    server.misbehave.append(lambda: (200, answer(encode(noise(3)))))
    with metered() as meter:
        client(server, **CONTROLS).render(asked)
    assert list(meter.notices) == [
        "the A1111 server does not say that it used the ControlNet 'scribble'"
    ]
    for status, said in (
        (422, b"always on script controlnet not found"),
        (500, b"RuntimeError: ControlNet model control_scribble(None) does not exist"),
    ):
        server.misbehave.append(lambda status=status, said=said: (status, said))
        with pytest.raises(JobError, match="cannot use the ControlNet"):
            client(server, **CONTROLS).render(asked)
    with pytest.raises(JobError, match="the profile names no ControlNet 'scribble'"):
        client(server).render(asked)


class Negative:
    """A renderer whose image is the negative of its input image."""

    def __init__(self) -> None:
        self.requests: list[RenderRequest] = []

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        self.requests.append(request)
        assert request.image
        return [1 - request.image.pixels for _ in request.seeds]


def test_an_input_image_and_its_mask_are_sent_and_what_is_not_masked_stays() -> None:
    image, left = noise(1), np.zeros((16, 16, 3), np.float32)
    left[:, :8] = 1
    asked = a_request(3, 4).model_copy(
        update={"image": LoadedImage("a", image), "mask": LoadedImage("b", left), "strength": 0.5}
    )
    with serve(renderer := Negative()) as server:
        images = client(server).render(asked)
        client(server).render(asked.model_copy(update={"mask": None}))
    masked, whole = renderer.requests
    assert masked.image is not None
    assert masked.mask is not None
    assert np.array_equal(masked.image.pixels, image)
    assert np.array_equal(masked.mask.pixels, left)
    assert (masked.strength, whole.mask) == (0.5, None)
    for each in images:
        assert np.allclose(each[:, :8], 1 - image[:, :8], atol=1e-6)
        assert np.array_equal(each[:, 8:], image[:, 8:])


def test_references_are_refused_and_not_left_out(server: Server) -> None:
    shown = a_request(1).model_copy(update={"references": ((0.5,),), "reference_scale": 1.0})
    with pytest.raises(JobError, match="no images"):
        client(server).render(shown)
    assert not server.requests


def test_a_server_that_stumbles_is_asked_again(server: Server) -> None:
    server.misbehave = [lambda: (503, b"busy"), lambda: (500, b"oops")]
    (image,) = client(server).render(a_request(3))
    assert np.array_equal(image, noise(3))
    assert len(server.requests) == 3


def test_a_server_that_keeps_failing_is_unavailable(server: Server) -> None:
    server.misbehave = [lambda: (502, b"bad gateway")] * 10
    with pytest.raises(Unavailable, match="502: bad gateway"):
        client(server).render(a_request(3))
    assert len(server.requests) == 4


def test_a_server_that_is_not_there_is_unavailable(server: Server) -> None:
    gone = A1111Renderer("http://127.0.0.1:1", "", A1111Profile())
    with pytest.raises(Unavailable, match="PRESSRUN_A1111_URL"):
        gone.render(a_request(3))


def test_a_server_that_takes_too_long_is_asked_once(server: Server) -> None:
    def slow() -> tuple[int, bytes]:
        threading.Event().wait(1)
        return 200, b"{}"

    server.misbehave = [slow]
    with pytest.raises(Unavailable, match="no images within"):
        client(server, timeout=0.2).render(a_request(3))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "content", "hint"),
    [
        (401, b"", "PRESSRUN_A1111_AUTH"),
        (404, b'{"detail": "Not Found"}', "--api"),
        (404, b'{"detail": "Sampler not found"}', "renderer.scheduler: .*Sampler not found"),
        (500, b'{"error": "RuntimeError", "errors": "Unknown checkpoint: x"}', "renderer.model"),
    ],
)
def test_a_server_set_up_otherwise_says_what_to_set(
    server: Server, status: int, content: bytes, hint: str
) -> None:
    server.misbehave = [lambda: (status, content)]
    with pytest.raises(Refused, match=hint):
        client(server).render(a_request(3))
    assert len(server.requests) == 1


def test_a_server_that_is_out_of_memory_is_asked_once(server: Server) -> None:
    server.misbehave = [lambda: (500, b'{"error": "OutOfMemoryError", "errors": "CUDA"}')]
    with pytest.raises(Unavailable, match=r"lower renderer\.batch"):
        client(server).render(a_request(3))
    assert len(server.requests) == 1


def test_a_refused_request_is_the_jobs_error(server: Server) -> None:
    server.misbehave = [lambda: (422, b"width too large")]
    with pytest.raises(JobError, match="422: width too large"):
        client(server).render(a_request(3))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>", "malformed"),
        (b"[]", "malformed"),
        (b'{"images": []}', "did not answer with 1 images"),
        (b'{"images": 3}', "did not answer with 1 images"),
        (b'{"images": [], "info": "no"}', "malformed"),
        (b"[" * 100_000, "malformed"),
        (answer("!!!"), "cannot be read"),
        (answer(base64.b64encode(b"GIF89a").decode()), "cannot be read"),
        (answer(encode(noise(1), "GIF")), "cannot be read"),
        (answer(encode(noise(1))[:400]), "cannot be read"),
        (b'{"images": [7]}', "cannot be read"),
        (answer(encode(noise(1, size=32))), "image of 32x32"),
        (answer(encode(noise(1)), seeds=[4]), r"used seeds \[4\], not \[3\]"),
        (b" " * 2_000_000, "more than"),
    ],
)
def test_an_answer_that_is_something_else_is_the_jobs_error(
    server: Server, content: bytes, problem: str
) -> None:
    server.misbehave = [lambda: (200, content)]
    with pytest.raises(JobError, match=problem):
        client(server).render(a_request(3))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_the_servers_image_formats_are_read(server: Server, image_format: str) -> None:
    flat = np.full((16, 16, 3), 0.5, np.float32)
    encoded = f"data:image/{image_format.lower()};base64,{encode(flat, image_format)}"
    server.misbehave = [lambda: (200, answer(encoded, seeds=[3]))]
    (image,) = client(server).render(a_request(3))
    assert np.abs(image - flat).max() <= 2 / 255


@pytest.mark.parametrize(("guidance", "told"), [(1, 1), (4, 0), (0.5, 1), (0, 1)])
def test_a_negative_prompt_without_effect_is_told(
    server: Server, guidance: float, told: int
) -> None:
    with metered() as meter:
        client(server).render(a_request(7).model_copy(update={"guidance": guidance}))
    said = f"the negative prompt has no effect with this model at guidance {guidance:g}"
    assert meter.notices == [said] * told
    assert server.requests[-1]["negative_prompt"] == ("" if told else "a star")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("closed", [b"", b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82"])
def test_a_file_that_is_cut_short_is_refused(
    server: Server, image_format: str, closed: bytes
) -> None:
    whole = base64.b64decode(encode(noise(3, 64), image_format))
    cut = base64.b64encode(whole[: len(whole) // 2] + closed).decode()
    server.misbehave = [lambda: (200, answer(cut, seeds=[3]))]
    request = a_request(3).model_copy(update={"width": 64, "height": 64})
    with pytest.raises(JobError, match=r"image cannot be read \("):
        client(server).render(request)


def test_a_grey_band_of_an_input_image_stays(server: Server) -> None:
    banded = noise(3)
    banded[8:] = 128 / 255
    image = LoadedImage("", banded)
    for format_ in ("PNG", "JPEG"):
        encoded = encode(banded, format_)
        server.misbehave = [lambda encoded=encoded: (200, answer(encoded, seeds=[3]))]  # type: ignore[misc]
        asked = a_request(3).model_copy(update={"image": image, "strength": 0.5})
        assert len(client(server).render(asked)) == 1


@pytest.mark.parametrize(("said", "told"), [('Steps: 5, Lora hashes: "a: 01"', 1), ("", 2)])
def test_loras_are_sent_and_those_that_the_server_does_not_name_are_told(
    server: Server, said: str, told: int
) -> None:
    plain = json.loads(generated(request_body(a_request(7), A1111Profile()), Noise()))
    plain["info"] = json.dumps({"all_seeds": [7], "infotexts": [said]})
    server.misbehave = [lambda: (200, json.dumps(plain).encode())]
    loras = (Lora(name="a", weight=0.5), Lora(name="b c"), Lora(name="d", weight=0.0))
    with metered() as meter:
        client(server).render(a_request(7).model_copy(update={"loras": loras}))
    assert server.requests[0]["prompt"] == "a circle <lora:a:0.5> <lora:b c:1> <lora:d:0>"
    notice = "the A1111 server does not say that it used the LoRA {!r}"
    assert meter.notices == [notice.format(name) for name in ("a", "b c")[-told:]]


@pytest.mark.parametrize(
    ("said", "told"),
    [('Lora hashes: "b: 01", TI hashes: "A: 01, c: 02", Version: 1', ["b"]), ("", ["a", "b"])],
)
def test_embeddings_that_the_server_does_not_name_are_told(
    server: Server, said: str, told: list[str]
) -> None:
    plain = json.loads(generated(request_body(a_request(7), A1111Profile()), Noise()))
    plain["info"] = json.dumps({"all_seeds": [7], "infotexts": [said]})
    server.misbehave = [lambda: (200, json.dumps(plain).encode())]
    embeddings = tuple(TextualInversion(name=name) for name in ("a", "b"))
    with metered() as meter:
        client(server).render(a_request(7).model_copy(update={"embeddings": embeddings}))
    assert server.requests[0]["prompt"] == "a circle"
    notice = "the A1111 server does not say that it used the embedding {!r}"
    assert meter.notices == [notice.format(name) for name in told]
