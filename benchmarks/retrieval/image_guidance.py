"""The share of images that take the colour of the collection that their job asks.

One collection holds images of red things and the other of blue ones, otherwise at random and
without a word. Both are asked with the same prompts, which say all but the colour, and the same
seeds, at several strengths. One candidate is rendered and none refused: the judge would judge by
the prompt, which both colours satisfy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.retrieval.chain import Chain, fill
from examples.shapes import world
from examples.shapes.world import Scene

COLOURS = ("red", "blue")
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
IMAGES = 24
"""In each collection."""
UNCOLOURED = world.ALL - {"colour"}


class ImageGuidance:
    """Two collections of images, filled, and the scenes that both are asked for."""

    def __init__(
        self, chain: Chain, rows: int, seed: int, strengths: Sequence[float] = STRENGTHS
    ) -> None:
        rng = np.random.default_rng(seed)
        self._chain, self._strengths = chain, strengths
        library = chain.library()
        for colour in COLOURS:
            folder = chain.sources / colour
            folder.mkdir()
            for at in range(IMAGES):
                scene = _coloured(world.sample_scene(rng, two=0), colour)
                Image.fromarray(world.draw(scene, rng)).save(folder / f"{at}.png")
            fill(library, colour, folder, IMAGES)
        library.client.close()
        self._scenes = [world.sample_scene(rng, two=0) for _ in range(rows)]

    def measure(self) -> dict[str, Any]:
        """The shares at full strength, and those at each."""
        sweep = {strength: self._at(strength) for strength in self._strengths}
        return {
            "follows_collection": sweep[1.0]["follows"],
            "keeps_shape": sweep[1.0]["keeps_shape"],
            "sweep": [{"strength": strength} | shares for strength, shares in sweep.items()],
        }

    def _at(self, strength: float) -> dict[str, float]:
        follows, keeps = list[bool](), list[bool]()
        for colour in COLOURS:
            jobs = self._chain.jobs(self._rows(colour, strength))
            kept = self._chain.run(f"{colour} at {strength}", jobs)
            for each, scene in zip(kept, self._scenes, strict=True):
                shown = each.reading.things[0] if each.reading else None
                follows.append(shown is not None and shown.colour == colour)
                keeps.append(shown is not None and shown.shape == scene.things[0].shape)
        return {"follows": fmean(follows), "keeps_shape": fmean(keeps)}

    def _rows(self, colour: str, strength: float) -> Iterator[dict[str, Any]]:
        for seed, scene in enumerate(self._scenes):
            yield {
                "keywords": world.prompt(scene, UNCOLOURED),
                "seed": seed,
                "collection": colour,
                "passages": 0,
                "references": 2 + seed % 3,
                "reference_scale": strength,
                "candidates": 1,
                "threshold": 0,
            }


def _coloured(scene: Scene, colour: str) -> Scene:
    return replace(scene, things=(replace(scene.things[0], colour=colour),))
