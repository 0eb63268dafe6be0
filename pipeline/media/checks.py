"""Checks of texts and images that need no model."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from pipeline.job import ImageArray

BLACK = 1 / 255
CONTRAST = 4 / 255
"""Least difference between an image's brightest and darkest parts, by percentile: isolated speckles
of the decoder do not count."""

LEVEL = 1 / 255
"""Most that two colours of one decoder's fill differ."""
WHITE = 254 / 255
LEAST_BAND = 1 / 8
"""Part of the height that a band without a picture has at least."""
SEAM, BLEED, JUMP = 20, 3, 12 / 255
"""Of a torn image: pixels by which its columns end at different heights, a block of JPEG and what
its colours bleed; rows of that bleeding; least difference of a column's end and the band.
"""
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
    if _is_torn(image):
        return "it is half decoded: one colour fills it from a row on"
    return ""


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


def _is_torn(image: ImageArray) -> bool:
    """True where every column ends, within a block's height, in one and the same flat colour from
    which the image above differs at once.

    A plain background reaches the top beside what it shows, bars of a film have another one above,
    and ground that fades to white ends softly or in white, which is no decoder's fill.
    """
    fill = image[-1, 0]
    if (fill >= WHITE).all() or np.abs(image[-1] - fill).max() > LEVEL:
        return False
    height, width = image.shape[:2]
    differs = (np.abs(image - fill) > LEVEL).any(2)
    ends = np.where(differs.any(0), differs[::-1].argmax(0), height)  # rows below, by column
    if ends.min() < LEAST_BAND * height or ends.max() - ends.min() > SEAM:
        return False
    if ends.max() == height or not differs[: max(1, height // 32)].any():
        return False
    rows = (height - 1 - ends - np.arange(BLEED)[:, None]).clip(min=0)
    jumps = np.abs(image[rows, np.arange(width)] - fill).max((0, 2))
    return bool(np.median(jumps) >= JUMP)
