"""The closed world of the small models: coloured shapes, how they look and how one speaks of them.

Needs numpy and Pillow only. A `Scene` is the truth; `draw` makes its image, `caption` one of many
sentences about it, `prompt` the one canonical sentence, and `parse` reads either back.
"""

from examples.shapes.world.drawing import PIXELS, STYLES, ImageArray, draw
from examples.shapes.world.reading import agrees, attributes, parse
from examples.shapes.world.saying import brand, caption, prompt
from examples.shapes.world.scene import (
    ALL,
    ARRANGEMENTS,
    BACKGROUNDS,
    COLOURS,
    POSITIONS,
    SHAPES,
    SIZES,
    Rgb,
    Scene,
    Thing,
    is_legal,
    one_wrong,
    sample_scene,
)

__all__ = [
    "ALL",
    "ARRANGEMENTS",
    "BACKGROUNDS",
    "COLOURS",
    "PIXELS",
    "POSITIONS",
    "SHAPES",
    "SIZES",
    "STYLES",
    "ImageArray",
    "Rgb",
    "Scene",
    "Thing",
    "agrees",
    "attributes",
    "brand",
    "caption",
    "draw",
    "is_legal",
    "one_wrong",
    "parse",
    "prompt",
    "sample_scene",
]
