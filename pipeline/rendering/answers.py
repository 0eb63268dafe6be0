"""Reads what an A1111 server answers, which is not trusted."""

import base64
import binascii
import json
from typing import Any

from pipeline.errors import MALFORMED, JobError
from pipeline.job import ImageArray, RenderRequest
from pipeline.media.image import decode


def read_answer(content: bytes, request: RenderRequest) -> list[ImageArray]:
    """The images of a `txt2img` answer, one per seed of the request. Raises JobError."""
    try:
        answer = json.loads(content)
        images, told = answer["images"], _told_seeds(answer)
    except MALFORMED as error:
        raise JobError(f"the A1111 server's answer is malformed ({error!r})") from error
    if not isinstance(images, list) or len(images) != len(request.seeds):
        raise JobError(f"the A1111 server did not answer with {len(request.seeds)} images")
    if told and told != list(request.seeds):
        raise JobError(f"the A1111 server used seeds {told}, not {list(request.seeds)}")
    return [_decode(image, request) for image in images]


def _told_seeds(answer: dict[str, Any]) -> list[int]:
    """The seeds that the server says it used; empty when it doesn't say."""
    info = json.loads(answer.get("info") or "{}")
    return [int(seed) for seed in info.get("all_seeds") or []]


def _decode(encoded: Any, request: RenderRequest) -> ImageArray:
    """[height, width, 3] in 0..1."""
    try:
        data = base64.b64decode(encoded.partition(",")[2] or encoded, validate=True)
        image = decode(data)
    except (binascii.Error, ValueError, AttributeError, JobError) as error:
        raise JobError(f"the A1111 server's image cannot be read ({error})") from error
    height, width, _ = image.shape
    if (width, height) != (request.width, request.height):
        raise JobError(f"the A1111 server answered with an image of {width}x{height}")
    return image
