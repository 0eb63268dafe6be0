"""Hashes of images that are near each other where the images look alike."""

import numpy as np
from PIL.Image import Resampling

from pipeline.job import ImageArray
from pipeline.media.image import luminance, to_image

SIDE, LOW = 32, 8
"""Pixels of the image that is transformed, and frequencies that are kept, each way."""
FLAT = 0.5 * SIDE * SIDE / 4
"""Coefficient of a wave of half a grey level: smaller ones are rounding."""
DIGITS = 2 * (LOW * LOW // 8 + 2 * 2 * 3)

_WAVES = np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(LOW)[:, None]).astype(np.float32)


def perceptual_hash(image: ImageArray) -> str:
    """The hash of a valid image, 40 hex digits: 64 bits of its forms, and the mean colours of its
    four quarters, row by row, 8 bits for each of red, green and blue.

    The bits tell which of the lowest 8x8 frequencies of the luminance are above their median
    (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, 3.2.1). As
    they say nothing of colours, the quarters do.
    """
    whole = to_image(image)
    small = np.asarray(whole.resize((SIDE, SIDE), Resampling.BOX), np.float32)
    waves = _WAVES @ luminance(small) @ _WAVES.T
    bits = np.packbits(waves > np.median(waves) + FLAT)
    quarters = np.asarray(whole.resize((2, 2), Resampling.BOX))
    return bits.tobytes().hex() + quarters.tobytes().hex()
