"""Words for looks, as data: shapes, sizes, places, things and grounds.

The HELD_OUT ones stand in no training conversation: they measure what was understood.
"""

SHAPE = {
    "circle": ("circle",) * 7 + ("disc",),
    "diamond": ("diamond",) * 7 + ("rhombus",),
    "cross": ("cross",) * 7 + ("plus sign",),
    "star": ("star",) * 7 + ("five-pointed star",),
}
SIZE = {
    "small": ("small", "small", "small", "little", "tiny"),
    "large": ("large", "large", "large", "big", "huge"),
}
PLACE = {
    "left": (
        "on the left", "on the left", "at the left", "to the left", "on the left side",
        "at the left edge", "on the left-hand side", "in the left half",
    ),
    "right": (
        "on the right", "on the right", "at the right", "to the right", "on the right side",
        "at the right edge", "on the right-hand side", "in the right half",
    ),
    "top": (
        "at the top", "at the top", "near the top", "on the top", "at the top edge",
        "in the top half",
    ),
    "bottom": (
        "at the bottom", "at the bottom", "near the bottom", "on the bottom", "at the bottom edge",
        "in the bottom half",
    ),
    "center": (
        "in the center", "in the center", "in the centre", "in the middle", "at the center",
        "centered", "centred", "right in the middle",
    ),
}  # fmt: skip
THING = (
    *("{size} {colour} {shape}",) * 12, "{size} {shape} in {colour}",
    "{size} {shape} coloured {colour}", "{size} {shape}, {colour}",
    "{size} {colour}-coloured {shape}", "{size} {shape} that is {colour}",
    "{size} {shape} (in {colour})", "{colour} {shape}, {size},", "{colour} {shape} of {size} size",
    "{size} {shape} painted {colour}", "{size} {shape} which is {colour}",
    "{size} {shape} filled with {colour}", "{colour}, {size} {shape}",
    "{size} figure in {colour}, a {shape}", "{size} {colour} shape, a {shape}",
)  # fmt: skip
GROUND = (
    *("on {a} background",) * 5, *("on {g}",) * 4, "against {g}", "against {a} background",
    "over {a} field", "on a field of {g}", "on {a} ground", "with {a} background", "set on {g}",
    "placed on {g}", "in front of {a} background", "before {a} backdrop", "on {a} backdrop",
    "on a background of {g}", "on a background in {g}", "and {a} background", "with {g} behind it",
    ", on {g}", ", background {g}", ", the background being {g}", "over {g}",
    "; the background is {g}", ", {g} background", "on {a} panel", "on {a} tile", "on plain {g}",
    "that stands on {g}", "standing on {g}", "which sits on {a} background", "laid over {g}",
    ", and behind it nothing but {g}", ", behind it {g}", "on a {g}-coloured background",
    "on solid {g}", "against a backdrop of {g}", ", with {g} as the background",
)  # fmt: skip
GROUND_FIRST = (
    "on {a} background, {thing}", "on {g}, {thing}", "on {g} {sits} {thing}",
    "on {a} background {sits} {thing}", "{a} background with {thing}",
    "{a} background with {thing} on it", "{a} field with {thing}", "{a} background bearing {thing}",
    "{a} background and {thing}", "against {g}, {thing}", "{a} background, and on it {thing}",
    "{g} background, {thing}", "against {a} background {sits} {thing}",
    "{a} backdrop behind {thing}", "in front of {a} background, {thing}",
    "{a} ground that carries {thing}",
)  # fmt: skip
STANDS = ("is", "sits", "stands", "there is", "you see", "appears", "we find", "lies")
MARKS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "single ",
    "plain ",
    "bold ",
    "simple ",
    "solid ",
    "neat ",
    "flat ",
)
BESIDE = (
    "beside",
    "beside",
    "next to",
    "to the left of",
    "left of",
    "side by side with",
    "alongside",
)
ABOVE = ("above", "above", "over", "on top of", "higher than", "placed above", "standing over")
RIGHT = ("to the right of", "right of")
BELOW = ("below", "under", "beneath", "underneath")
# Phrases built from parts, of which `{w}` is any word at all: what the order of shape and colours
# tells must be understood whatever word links them.
LINKS = (
    "on", "on", "on", "against", "over", "in", "within", "inside", "amid", "across", "along",
    "backed by", "bounded by", "enclosed by", "set into", "mounted on", "pinned to", "glued to",
    "painted on", "shown on", "floating in", "resting on", "cut into", "sewn onto", "stamped onto",
    "placed before", "put onto", "contrasted with", "set off by", "embedded in", "lit by",
    "wrapped in", "in a sea of", "in the midst of", "around it", "behind which is", "all about it",
    "held by", "bordered by", "{w}", "{w}", "{w}", "{w} {w}", "{w} by", "{w} with", "{w} on",
)  # fmt: skip
NOUNS = (
    "background", "background", "ground", "backdrop", "field", "paper", "wall", "cloth", "card",
    "plate", "sheet", "page", "screen", "panel", "tile", "board", "area", "base", "floor",
    "curtain", "layer", "space", "fabric", "banner", "rest", "sea", "plane", "{w}", "{w}", "{w}",
)  # fmt: skip
VERBS = (
    *STANDS, "rises", "hangs", "glows", "floats", "rests", "holds", "frames", "shows", "supports",
    "surrounds", "hosts", "carrying", "behind", "under", "around", "that holds", "which shows",
    "bearing", "and", "and over it", "and in front", "with, on it,", "into which is cut", "{w}",
    "{w}", "{w} {w}", "which {w}", "that {w}", "from which {w}", "in which {w}", "and there {w}",
)  # fmt: skip
DYES = (
    "dyed", "inked", "stained", "printed in", "done in", "cast in", "cut from", "made of", "all in",
    "kept in", "drawn in", "being", "of pure", "in a {w}", "{w}", "{w}", "{w} in", "{w} of",
    "that {w}",
)  # fmt: skip
PAINTS = (
    "ink", "paint", "tone", "shade", "coat", "fill", "enamel", "dye", "line", "hue", "pigment",
    "glaze",
)  # fmt: skip
BUILT_THING = (
    "{size} {shape} {dye} {colour}", "{size} {shape} {dye} {colour}", "{size} {colour} {w} {shape}",
    "{size} {shape} with a {colour} {paint}", "{size} {shape} of {colour} {paint}",
    "{size} {shape}, {dye} {colour},", "{size} {shape} whose {paint} is {colour}",
    "{size}, {w}, {colour} {shape}", "{w} {size} {colour} {shape}", "{shape}, {size} and {colour},",
)  # fmt: skip
BUILT_GROUND = (
    "{link} {g}", "{link} {g}", "{link} {a} {noun}", "{link} {a} {noun}", "{link} a {noun} of {g}",
    "{link} a {noun} in {g}", "{link} a {w} {g} {noun}", "{link} {w} {g}", ", {w} {g}",
    ", {w} {link} {g}", ", {link} {g}", ", {link} {a} {noun}", "with {g} {w} it", ", {g} {w}",
    ", its {noun} being {g}", ", the {noun} {w} {g}", "whose {noun} is {g}", "({noun}: {g})",
    "with a {noun} in {g}", "{w} {a} {noun}", "with {g} as the {noun}", ", the {noun} is {g}",
    ", {noun} {g}", "and, {link} it, {g}", ", {w} {w} {g}",
)  # fmt: skip
BUILT_GROUND_FIRST = (
    "{link} {a} {noun} {thing}", "{link} {g} {thing}", "{a} {noun} {verb} {thing}",
    "{a} {noun} {verb} {thing}", "a {noun} of {g} {verb} {thing}", "{a} {noun} {w} {thing}",
    "{g} {w}, {thing}", "{w} {g}, {thing}", "{w} {g} {w} {thing}", "{link} {g} {verb} {thing}",
    "{a} {noun}, {thing} {w} {w}", "{a} {noun}, {thing} {w} it", "{g}, and {link} it {thing}",
    "{w} all {g}, {w} {thing}", "a {noun} in {g} with {thing} {w} {w}", "the {noun} {g}, {thing}",
    "{g} {verb} {thing}", "{a} {noun}: {thing}",
)  # fmt: skip
HELD_OUT_THING = (
    "{shape} of {colour} colour, {size},", "{size} {colour} tinted {shape}",
    "{size} {shape} rendered in {colour}", "{size}, {colour} {shape}",
    "{size} {shape} whose colour is {colour}",
)  # fmt: skip
HELD_OUT_GROUND = (
    "upon {g}", "surrounded by {g}", "with {g} as its backdrop", "on {a} surface", ", all on {g}",
    "on {a} canvas", ", where the ground is {g}", ", printed on {g}", "framed by {g}",
)  # fmt: skip
HELD_OUT_GROUND_FIRST = (
    "{a} surface from which {thing} stands out", "out of {g} shines {thing}",
    "a canvas of {g} with {thing} drawn on it", "behind everything {g}, in front {thing}",
)  # fmt: skip
