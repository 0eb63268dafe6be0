"""The best images of a run side by side in one small JPEG."""

import base64
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO

from PIL import Image, ImageOps

from pipeline.errors import JobError
from pipeline.media.image import read_image
from pipeline.record import Status
from pipeline.records.manifest import Manifest
from pipeline.records.run_folder import RunFolder

IMAGES = 24
COLUMNS = 6
SIDE = 160
LARGEST = 200_000
"""Bytes; as a data: URI it is a third longer."""


def contact_sheet(run_folder: RunFolder, manifest: Manifest) -> str:
    """The run's best accepted images as a data: URI; empty where there is none."""
    paths = best(manifest)
    if not paths:
        return ""
    jpeg = sheet(run_folder.blob(path) for path in paths)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def best(manifest: Manifest) -> list[str]:
    """The paths of the accepted images that score highest, best first; equal rows share one."""
    kept, least = dict[str, float](), -1.0
    for line in manifest.lines("outcome", "score", "image"):
        if line["outcome"] == Status.ACCEPTED and line["image"] and line["score"] > least:
            kept[line["image"]] = line["score"]
            if len(kept) > IMAGES:
                del kept[min(kept, key=lambda path: kept[path])]
                least = min(kept.values())
    return sorted(kept, key=lambda path: -kept[path])


def sheet(files: Iterable[bytes]) -> bytes:
    """Images in a grid, as a JPEG of at most LARGEST bytes. A damaged one, which the reconciler
    reports, takes no place.
    """
    tiles = list[Image.Image]()
    for data in files:
        with suppress(JobError):
            image = read_image(data, SIDE - 4)
            fitted = ImageOps.pad(image, (SIDE - 4, SIDE - 4), color="white")
            tiles.append(ImageOps.expand(fitted, 2, "white"))
    rows = -(-len(tiles) // COLUMNS)
    page = Image.new("RGB", (SIDE * max(1, min(COLUMNS, len(tiles))), SIDE * max(1, rows)), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        page.paste(tile, (column * SIDE, row * SIDE))
    for quality in (85, 70, 50, 30, 10):
        file = BytesIO()
        page.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LARGEST:
            break
    return file.getvalue()
