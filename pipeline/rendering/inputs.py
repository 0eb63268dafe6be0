"""The input images of a request: the mask of an image and the pixels that it keeps, and the images
that ControlNets read.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.job import ImageArray, RenderRequest
from pipeline.media.edges import canny
from pipeline.media.image import luminance
from pipeline.profile import Preprocessor

MASK_ASKED = "this model paints masked images alone: a row needs image and mask"


def mask_of(request: RenderRequest) -> NDArray[np.float32]:
    """[height, width] in 0..1: 1 where the image is painted anew."""
    assert request.mask is not None
    return luminance(request.mask.pixels)


def pasted(request: RenderRequest, images: Sequence[ImageArray]) -> list[ImageArray]:
    """The images, with the input image's own pixels where the mask is black, mixed where it is
    grey: a decoder changes what its latents kept.
    """
    if request.mask is None or request.image is None:
        return list(images)
    mask, kept = mask_of(request)[..., None], request.image.pixels
    return [kept + mask * (image - kept) for image in images]


def _luminance(image: ImageArray) -> ImageArray:
    return np.repeat(luminance(image)[..., None], 3, axis=2)


PREPROCESSORS: Mapping[Preprocessor, Callable[[ImageArray], ImageArray]] = {
    "none": lambda image: image,
    "canny": canny,
    "invert": lambda image: 1 - image,
    "luminance": _luminance,
}
"""What makes a control image of a row's image."""
