"""The renderer that calls AUTOMATIC1111's `txt2img` and `img2img`: the WebUI itself, Forge or
SD.Next.

The interface is the WebUI's own: a request for n images from seed s uses s, s+1, …, s+n-1.
"""

import base64
import binascii
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from pipeline.errors import MALFORMED, JobError, PressrunError, Refused, Unavailable
from pipeline.http import Answer, BadAnswer, Exchange, worth_another_try
from pipeline.job import Control, ImageArray, RenderRequest
from pipeline.media.checks import is_half_decoded
from pipeline.media.image import decode, encode
from pipeline.ports import Pruner
from pipeline.profile import A1111Profile
from pipeline.rendering.calls import guided, unheard
from pipeline.rendering.inputs import PREPROCESSORS, pasted
from pipeline.telemetry import charge, notice, rendered_by
from pipeline.watchdog import suspended

ROOM = 1 << 20
"""Bytes of an answer beside its images."""


class NoAnswer(Unavailable):
    """The A1111 server did not answer; check that it runs with --api, at PRESSRUN_A1111_URL."""


class A1111Renderer:
    """Sends one request for each row of consecutive seeds; `auth` is `user:password` or empty."""

    def __init__(self, url: str, auth: str, profile: A1111Profile) -> None:
        user, _, password = auth.partition(":")
        self._client = Exchange(base_url=url.rstrip("/"), auth=(user, password) if auth else None)
        self._profile = profile

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """One image per seed, in order. Raises JobError for a request with references or an unknown
        ControlNet, and for one that the server refuses or answers with something else; Refused
        where it would refuse every request; Unavailable when it does not answer.
        """
        if request.references:
            raise JobError("an A1111 server is sent no images: set reference_scale to 0")
        if request.control and request.control.name not in self._profile.controls:
            raise JobError(f"the profile names no ControlNet {request.control.name!r}")
        rendered_by("a1111")
        if request.negative and not guided(request):
            notice(unheard(request))
        start = time.perf_counter()
        images: list[ImageArray] = []
        for seeds in rows_of_seeds(request.seeds, self._profile.batch):
            part = request.model_copy(update={"seeds": seeds})
            images += read_answer(self._ask(part), part)
        charge("renderer", time.perf_counter() - start)
        return pasted(request, images)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @suspended()
    def _ask(self, request: RenderRequest) -> bytes:
        try:
            answer = self._client.post(
                f"/sdapi/v1/{'img2img' if request.image else 'txt2img'}",
                json=request_body(request, self._profile),
                seconds=self._profile.timeout,
                # 4 bytes of base64 for each pixel of an uncompressed image, twice over, and for a
                # control image
                largest=ROOM + (len(request.seeds) + 1) * request.width * request.height * 8,
                again=lambda answer: isinstance(refusal(answer), NoAnswer),
            )
        except BadAnswer as error:
            raise JobError(f"the A1111 server sent an answer of {error}") from error
        except TimeoutError as error:
            raise Unavailable(f"no images within {self._profile.timeout:g} s") from error
        except httpx.TransportError as error:
            raise NoAnswer(type(error).__name__) from error
        if refused := refusal(answer):
            raise refused
        return answer.body


def rows_of_seeds(seeds: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    """The seeds in order, in rows of at most `limit` that each count up by one."""
    row: list[int] = []
    for seed in seeds:
        if row and (seed != row[-1] + 1 or len(row) == limit):
            yield tuple(row)
            row = []
        row.append(seed)
    if row:
        yield tuple(row)


def request_body(request: RenderRequest, profile: A1111Profile) -> dict[str, Any]:
    """The body of a `txt2img` or `img2img` call for a request with consecutive seeds."""
    tags = (f"<lora:{lora.name}:{lora.weight:g}>" for lora in request.loras)
    body: dict[str, Any] = {
        "prompt": " ".join([request.prompt, *tags]),
        # below 1 the server would mix it in, at 0 render nothing else
        "negative_prompt": request.negative if guided(request) else "",
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "cfg_scale": request.guidance,
        "seed": request.seeds[0],
        "batch_size": len(request.seeds),
        "n_iter": 1,
        "save_images": False,
        "send_images": True,
        "override_settings": {"return_grid": False},
        "override_settings_restore_afterwards": False,
    }
    if request.image:
        body |= {
            "init_images": [_base64(request.image.pixels)],
            "denoising_strength": request.strength,
            "resize_mode": 0,  # it has the row's size
        }
    if request.mask:
        body |= {
            "mask": _base64(request.mask.pixels),
            "mask_blur": 0,
            "inpainting_fill": 1,  # what is under the mask stays there to begin from
            "inpaint_full_res": False,
        }
    if request.control and request.control.scale:
        body["alwayson_scripts"] = {"controlnet": {"args": [_unit(request.control, profile)]}}
    if profile.scheduler:
        body["sampler_name"] = profile.scheduler
    if profile.model:
        body["override_settings"]["sd_model_checkpoint"] = profile.model
    return body


def _unit(control: Control, profile: A1111Profile) -> dict[str, Any]:
    """A unit of sd-webui-controlnet, with the control image as it is to be read."""
    named = profile.controls[control.name]
    return {
        "enabled": True,
        "module": "none",
        "model": named.model,
        "image": _base64(PREPROCESSORS[named.preprocessor](control.image.pixels)),
        "weight": control.scale,
        "guidance_start": control.first,
        "guidance_end": control.until,
        "resize_mode": "Just Resize",  # it has the row's size
        "pixel_perfect": True,
        "control_mode": "Balanced",
    }


def _base64(image: ImageArray) -> str:
    return base64.b64encode(encode(image, "png", "")).decode()


def refusal(answer: Answer) -> PressrunError | None:
    """The error that an answer stands for; None for one with images."""
    status = answer.status
    if status == httpx.codes.OK:
        return None
    said = " ".join(answer.body[:300].decode(errors="replace").split())
    if "OutOfMemory" in said or "out of memory" in said:
        hint = "lower renderer.batch, or the size"
        return Unavailable(f"The A1111 server is out of memory; {hint}: {said}")
    if "checkpoint" in said.lower() and status >= 400:
        return Refused(f"The A1111 server lacks the model; correct renderer.model: {said}")
    if "controlnet" in said.lower():
        return JobError(f"the A1111 server cannot use the ControlNet ({status}): {said}")
    if worth_another_try(status):
        return NoAnswer(f"It said {status}: {said}")
    if status in (401, 403):
        return Refused(
            f"The A1111 server refused the credentials; set PRESSRUN_A1111_AUTH ({status})"
        )
    if status == 404 and "sampler" in said.lower():
        return Refused(f"The A1111 server lacks the sampler; correct renderer.scheduler: {said}")
    if status == 404:
        return Refused("The A1111 server has no txt2img or img2img; start it with --api")
    return JobError(f"the A1111 server refused the request with {status}: {said}")


def read_answer(content: bytes, request: RenderRequest) -> list[ImageArray]:
    """The images of an answer, one per seed of the request and of its size. Raises
    JobError.
    """
    try:
        answer = json.loads(content)
        images, info = answer["images"], json.loads(answer.get("info") or "{}")
        # some servers leave these out
        seeds = [int(seed) for seed in info.get("all_seeds") or []]
        said = " ".join(map(str, info.get("infotexts") or []))
    except MALFORMED as error:
        raise JobError(f"the A1111 server's answer is malformed ({error!r})") from error
    if request.control and isinstance(images, list):
        images = images[: len(request.seeds)]  # the extension adds its control image
    if not isinstance(images, list) or len(images) != len(request.seeds):
        raise JobError(f"the A1111 server did not answer with {len(request.seeds)} images")
    if seeds and seeds != list(request.seeds):
        raise JobError(f"the A1111 server used seeds {seeds}, not {list(request.seeds)}")
    # unknown ones are left out in silence
    loras, embeddings = (said.partition(f"{kind} hashes:")[2] for kind in ("Lora", "TI"))
    for lora in request.loras:
        if lora.weight and f"{lora.name}:" not in loras:
            notice(f"the A1111 server does not say that it used the LoRA {lora.name!r}")
    for embedding in request.embeddings:
        if f"{embedding.name}:".lower() not in embeddings.lower():
            notice(f"the A1111 server does not say that it used the embedding {embedding.name!r}")
    control = request.control
    if control and control.scale and "ControlNet 0:" not in said:
        notice(f"the A1111 server does not say that it used the ControlNet {control.name!r}")
    decoded: list[ImageArray] = []
    for encoded in images:
        try:
            data = base64.b64decode(encoded.partition(",")[2] or encoded, validate=True)
            image = decode(data)
        except (binascii.Error, ValueError, AttributeError, JobError) as error:
            raise JobError(f"the A1111 server's image cannot be read ({error})") from error
        height, width, _ = image.shape
        if (width, height) != (request.width, request.height):
            raise JobError(f"the A1111 server answered with an image of {width}x{height}")
        # an input image may have a grey band of its own, which stays
        if request.image is None and is_half_decoded(image):
            raise JobError("the A1111 server's image cannot be read (its file is cut short)")
        decoded.append(image)
    return decoded
