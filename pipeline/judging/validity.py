"""Tells pictures that are no pictures from those worth judging. numpy only."""

import numpy as np

from pipeline.job import Picture

BLACK = 1 / 255
CONTRAST = 4 / 255
"""The least difference between a picture's brightest and darkest parts, by percentile: a decoder's
speckles alone don't make a picture."""


def problem(picture: Picture) -> str:
    """Why [height, width, 3] values in 0..1 are not a picture; empty when they are.

    A judge can rank a black frame above a healthy picture, so this comes first.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        return f"a picture has shape [height, width, 3], not {list(picture.shape)}"
    if not np.isfinite(picture).all():
        return "it holds values that are not finite"
    if picture.max() <= BLACK:
        return "it is all black"
    low, high = np.percentile(picture, [0.5, 99.5], axis=(0, 1))
    if (high - low).max() < CONTRAST:
        return "it is blank"
    return ""
