"""Reads what an A1111 server answers, which is not trusted."""

import base64
import binascii
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import JobError
from pipeline.job import Order, Picture

FORMATS = ("PNG", "JPEG", "WEBP")


def read_answer(content: bytes, order: Order) -> list[Picture]:
    """The pictures of a `txt2img` answer, one per seed of the order. Raises JobError."""
    try:
        answer = json.loads(content)
        images, told = answer["images"], _told_seeds(answer)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise JobError(f"the A1111 server's answer is malformed ({error!r})") from error
    if not isinstance(images, list) or len(images) != len(order.seeds):
        raise JobError(f"the A1111 server did not answer with {len(order.seeds)} pictures")
    if told and told != list(order.seeds):
        raise JobError(f"the A1111 server used seeds {told}, not {list(order.seeds)}")
    return [_decode(image, order) for image in images]


def _told_seeds(answer: dict[str, Any]) -> list[int]:
    """The seeds that the server says it used; empty when it doesn't say."""
    info = json.loads(answer.get("info") or "{}")
    return [int(seed) for seed in info.get("all_seeds") or []]


def _decode(encoded: Any, order: Order) -> Picture:
    """[height, width, 3] in 0..1. The size is checked before any pixel is decompressed."""
    try:
        data = base64.b64decode(encoded.partition(",")[2] or encoded, validate=True)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.size != (order.width, order.height):
                raise JobError(f"the A1111 server answered with a picture of {image.size}")
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    except (binascii.Error, ValueError, AttributeError, OSError, SyntaxError) as error:
        raise JobError(f"the A1111 server's picture cannot be read ({error})") from error
    except Image.DecompressionBombError as error:
        raise JobError("the A1111 server's picture is too large") from error
    picture: Picture = pixels / np.float32(255)
    return picture
