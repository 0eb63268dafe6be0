"""The edges of an image, as ControlNets for them were trained on."""

import numpy as np
from numpy.typing import NDArray

from pipeline.job import ImageArray

LOW, HIGH = 100, 200
"""Thresholds of the gradient's L1 norm in 8 bits, as A1111 and training scripts have them."""


def canny(image: ImageArray, low: int = LOW, high: int = HIGH) -> ImageArray:
    """White lines one pixel wide on black, [height, width, 3].

    Canny 1986, https://doi.org/10.1109/TPAMI.1986.4767851, with OpenCV's choices: Sobel's operator
    without smoothing before it, and of the three channels the one of the steepest gradient.
    """
    pixels = (image.clip(0, 1) * 255).round().astype(np.int32)
    dx, dy = _gradient(pixels)
    steepest = (abs(dx) + abs(dy)).argmax(axis=2)[..., None]
    dx, dy = (np.take_along_axis(each, steepest, axis=2)[..., 0] for each in (dx, dy))
    norm = abs(dx) + abs(dy)
    crests = _crests(dx, dy, norm)
    lines = _joined(crests & (norm > high), crests & (norm > low))
    return np.repeat(lines[..., None], 3, axis=2).astype(np.float32)


def _gradient(pixels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sobel's derivatives along x and y, with the border's pixels repeated outwards."""
    wide = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    down = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return across[:, 2:] - across[:, :-2], down[2:] - down[:-2]


def _crests(
    dx: NDArray[np.int32], dy: NDArray[np.int32], norm: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """True where no neighbour along the gradient is steeper."""
    padded = np.pad(norm, 1)
    rows, columns = norm.shape

    def beside(down: int, right: int) -> NDArray[np.int32]:
        return padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]

    level = abs(dy) < abs(dx) * np.tan(np.pi / 8)
    upright = abs(dy) > abs(dx) * np.tan(3 * np.pi / 8)
    falling = (dx < 0) == (dy < 0)
    before, after = (
        np.select(
            [level, upright, falling],
            [beside(0, sign), beside(sign, 0), beside(sign, sign)],
            beside(sign, -sign),
        )
        for sign in (-1, 1)
    )
    # of two equally steep neighbours one is the line
    tied = (level | upright) & (norm == after)
    crests: NDArray[np.bool_] = (norm > before) & ((norm > after) | tied)
    return crests


def _joined(strong: NDArray[np.bool_], weak: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The strong pixels, and the weak ones that are connected with them."""
    kept, open_ = np.pad(strong, 1), np.pad(weak & ~strong, 1)
    width = kept.shape[1]
    around = [row + column for row in (-width, 0, width) for column in (-1, 0, 1)]
    frontier = np.flatnonzero(kept)
    while len(frontier):
        near = (frontier[:, None] + around).ravel()
        frontier = np.unique(near[open_.flat[near]])
        open_.flat[frontier], kept.flat[frontier] = False, True
    return kept[1:-1, 1:-1]
