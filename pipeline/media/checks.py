"""Checks of texts and images that need no model."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from pipeline.job import ImageArray

BLACK = 1 / 255
CONTRAST = 4 / 255
"""Least difference between an image's brightest and darkest parts, by percentile: isolated speckles
of the decoder do not count."""

GREY = np.float32(128 / 255)
BLOCK, BLEED = 8, 1
"""Of JPEG: pixels of a block, and rows by which the colours above run into the next one."""
SAME = 2 / 255
"""Most that images of one seed differ."""
SAMPLES = 16


def says_something(text: str) -> bool:
    """True for a text with a letter, a digit or a pictographic symbol such as an emoji."""
    return any(c.isalnum() or unicodedata.category(c) == "So" for c in text)


def problem(image: ImageArray) -> str:
    """The reason why [height, width, 3] values in 0..1 are not an image; empty for a valid one.

    A judge can rank a black frame above a healthy image, so this comes first.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        return f"an image has shape [height, width, 3], not {list(image.shape)}"
    if not np.isfinite(image).all():
        return "it holds values that are not finite"
    if image.max() <= BLACK:
        return "it is all black"
    low, high = np.percentile(image, [0.5, 99.5], axis=(0, 1))
    if (high - low).max() < CONTRAST:
        return "it is blank"
    return ""


def is_half_decoded(image: ImageArray) -> bool:
    """True for the 8-bit image of a JPEG file whose data ended early: from a row of blocks on it is
    of the middle grey.

    libjpeg fills blocks without data with zeros (jdhuff.c, `insufficient_data`), and Pillow tells
    of no error where the file has its end marker.
    """
    filled = (np.abs(image - GREY) < 0.5 / 255).all((1, 2))
    if filled.all() or not filled[-1]:
        return False
    rows = int(filled[::-1].argmin())
    return rows >= BLOCK - BLEED and (len(filled) - rows) % BLOCK <= BLEED


def repeated(image: ImageArray, others: Sequence[ImageArray | None]) -> int | None:
    """The index of the first of the others that is the same image; None where there is none."""

    def same(other: ImageArray) -> bool:
        if other.shape != image.shape:
            return False
        rows, columns = (max(1, side // SAMPLES) for side in image.shape[:2])
        with np.errstate(invalid="ignore"):  # of infinite values
            few = np.abs(image[::rows, ::columns] - other[::rows, ::columns]).max() <= SAME
            return bool(few and np.abs(image - other).max() <= SAME)

    found = (index for index, other in enumerate(others) if other is not None and same(other))
    return next(found, None)
