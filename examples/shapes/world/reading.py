"""Sentences as scenes."""

import re
from typing import Any

from examples.shapes.world.saying import ABOVE, BESIDE, TURNED
from examples.shapes.world.scene import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, Scene

_GROUND = re.compile(
    rf"\b(?:on |against )?(?:an? )?(?P<a>{'|'.join(BACKGROUNDS)}) (?:background|backdrop)\b"
    rf"|\b(?:on|against) (?P<b>{'|'.join(BACKGROUNDS)})(?=$|[,.])"
)
_SAME = {"grey": "gray", "centre": "center", "middle": "center", "little": "small", "tiny": "small",
         "big": "large"}  # fmt: skip
_LINKS = {
    **dict.fromkeys(BESIDE, ("beside", False)), **dict.fromkeys(ABOVE, ("above", False)),
    **{link: (kind, True) for kind, links in TURNED.items() for link in links},
}  # fmt: skip


def parse(prompt: str) -> dict[str, Any]:
    """The scene said: {"things": [{shape, colour, size, position}, ...], background, arrangement}.

    Only what is said is a key; of two things the first is the left or upper one where the
    arrangement is said. Words outside this world are passed over.
    """
    text = re.sub(r"[a-z]+", lambda m: _SAME.get(m[0], m[0]), prompt.lower())
    found: dict[str, Any] = {}
    if ground := _GROUND.search(text):
        found["background"] = ground["a"] or ground["b"]
        text = text[: ground.start()] + " , " + text[ground.end() :]
    shapes = list(re.finditer(rf"\b(?:{'|'.join(SHAPES)})\b", text))
    if len(shapes) < 2:
        return {"things": [_traits(text, SIZES, POSITIONS)] if shapes else [], **found}
    parts = (text[: shapes[0].end()], text[shapes[0].end() : shapes[1].end()])
    things = [_traits(part, SIZES) for part in parts]
    links = [link for link in _LINKS if f" {link} " in parts[1]]
    if links:
        found["arrangement"], turned = _LINKS[max(links, key=len)]
        things = things[::-1] if turned else things
    return {"things": things, **found}


def _traits(text: str, sizes: tuple[str, ...], places: tuple[str, ...] = ()) -> dict[str, str]:
    words = re.findall(r"[a-z]+", text)
    kinds = {
        "shape": SHAPES,
        "colour": tuple(COLOURS),
        "size": sizes,
        "position": places,
    }
    return {kind: hit for kind, values in kinds.items() if (hit := _first(words, values))}


def _first(words: list[str], values: tuple[str, ...]) -> str | None:
    return next((word for word in words if word in values), None)


def attributes(scene: Scene) -> dict[str, Any]:
    """The whole truth of a scene in the form that `parse` gives."""
    things = [{k: v for k, v in vars(thing).items() if v} for thing in scene.things]
    found: dict[str, Any] = {"things": things, "background": scene.background}
    return found | ({"arrangement": scene.arrangement} if scene.arrangement else {})


def agrees(said: dict[str, Any], scene: Scene) -> bool:
    """True if nothing that was said (see `parse`) contradicts the scene."""
    truth = attributes(scene)
    if any(said[k] != truth.get(k) for k in ("background", "arrangement") if k in said):
        return False
    things = truth["things"]
    orders = [things] if "arrangement" in said else [things, things[::-1]]
    return any(_all_within(said["things"], order) for order in orders)


def _all_within(said: list[dict[str, str]], things: list[dict[str, str]]) -> bool:
    pairs = zip(said, things, strict=False)
    return len(said) == len(things) and all(s.items() <= t.items() for s, t in pairs)
