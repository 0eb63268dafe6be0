"""Checks of texts and images that need no model."""

import unicodedata

import numpy as np

from pipeline.job import ImageArray

BLACK = 1 / 255
CONTRAST = 4 / 255
"""Least difference between an image's brightest and darkest parts, by percentile: isolated speckles
of the decoder do not count."""


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
