"""Scenes as images."""

from collections.abc import Iterable
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from examples.shapes.world.scene import BACKGROUNDS, COLOURS, Rgb, Scene

ImageArray = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]

STYLES = ("filled", "outlined", "monochrome")
PIXELS = 64
_SCALE = 4  # images are drawn this much larger and averaged down
_RADIUS = {"small": 9.0, "large": 16.0, None: 12.0}
_OFFSET = {
    "left": (-14, 0),
    "right": (14, 0),
    "top": (0, -14),
    "bottom": (0, 14),
    "center": (0, 0),
}
_PAIR = {"beside": ((-15, 0), (15, 0)), "above": ((0, -15), (0, 15))}


def draw(scene: Scene, rng: np.random.Generator, style: str = "filled") -> ImageArray:
    """The scene as uint8 [64, 64, 3], with small random rotation, shift, size and colour jitter."""
    ground = _jitter(BACKGROUNDS[scene.background], 5, rng)
    side = PIXELS * _SCALE
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    for thing, offset in zip(scene.things, _offsets(scene), strict=True):
        radius = _RADIUS[thing.size] * rng.uniform(0.93, 1.07)
        centre = PIXELS / 2 + np.array(offset) + rng.uniform(-1.5, 1.5, 2)
        colour = _jitter(COLOURS[thing.colour], 8, rng)
        angle = rng.uniform(-0.2, 0.2)
        for i, outline in enumerate(_OUTLINES[thing.shape]):
            points = _place(outline, radius, centre, angle)
            if style == "outlined":
                pen.line(
                    points + points[:2],
                    fill=colour,
                    width=round(2.5 * _SCALE),
                    joint="curve",
                )
            else:
                pen.polygon(points, fill=ground if i else colour)
    if style == "monochrome":
        image = image.convert("L").convert("RGB")
    return np.asarray(image.reduce(_SCALE))


def _offsets(scene: Scene) -> Iterable[tuple[int, int]]:
    if scene.arrangement:
        return _PAIR[scene.arrangement]
    return [_OFFSET[thing.position or "center"] for thing in scene.things]


def _jitter(colour: Rgb, by: int, rng: np.random.Generator) -> Rgb:
    r, g, b = np.clip(np.array(colour) + rng.integers(-by, by + 1, 3), 0, 255).tolist()
    return r, g, b


def _place(
    outline: Points, radius: float, centre: Points, angle: float
) -> list[tuple[float, float]]:
    turn = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
    return [(x, y) for x, y in (((outline @ turn) * radius + centre) * _SCALE).tolist()]


def _round(radius: float) -> Points:
    turn = np.linspace(0, 2 * pi, 48, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], 1) * radius


def _spikes(count: int, outer: float, inner: float) -> Points:
    turn = np.arange(2 * count) * pi / count - pi / 2
    length = np.where(np.arange(2 * count) % 2, inner, outer)
    return np.stack([np.cos(turn), np.sin(turn)], 1) * length[:, None]


def _heart() -> Points:
    t = np.linspace(0, 2 * pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16, -(y + 2.5) / 15.5], 1)


def _cross(arm: float) -> Points:
    corner = [(arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm), (arm, 1.0)]
    return np.array(corner + [(-x, -y) for x, y in corner])


# Closed curves in a unit box, y down; a second curve is a hole.
_OUTLINES: dict[str, tuple[Points, ...]] = {
    "circle": (_round(0.98),),
    "square": (np.array([(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]),),
    "triangle": (np.array([(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)]),),
    "star": (_spikes(5, 1.08, 0.45),),
    "heart": (_heart(),),
    "ring": (_round(1.0), _round(0.55)),
    "cross": (_cross(0.34),),
    "diamond": (np.array([(0.0, -1.05), (0.7, 0.0), (0.0, 1.05), (-0.7, 0.0)]),),
}
