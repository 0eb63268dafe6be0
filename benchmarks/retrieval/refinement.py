"""The worth of a second round: images of what lacks, against as many more candidates.

A collection holds one image of each of many scenes, without a word. Rows ask the draft renderer,
which errs more, for other scenes. `one_round` renders twice as many candidates,
`two_rounds` as many again with the images found for what the best one lacks. What counts is what
the umpire sees: `won_…` is the share of the rows whose kept image shows the scene, `won_late_…`
that of the rows which went into a second round.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.retrieval.chain import Chain, Kept, fill
from examples.shapes import world

LOOKS = "looks"
IMAGES = 400
CANDIDATES = 2
STRENGTH = 0.8


class Refinement:
    """A collection of images, filled, and the scenes that are asked for."""

    def __init__(self, chain: Chain, rows: int, seed: int, images: int = IMAGES) -> None:
        rng = np.random.default_rng(seed)
        self._chain = chain
        folder = chain.sources / LOOKS
        folder.mkdir()
        for at in range(images):
            scene = world.sample_scene(rng, two=0)
            Image.fromarray(world.draw(scene, rng)).save(folder / f"{at}.png")
        library = chain.library()
        fill(library, LOOKS, folder, images)
        library.client.close()
        self._scenes = [world.sample_scene(rng, two=0) for _ in range(rows)]

    def measure(self) -> dict[str, Any]:
        """The shares of both ways."""
        one = self._run("one round", candidates=2 * CANDIDATES, rounds=1)
        two = self._run("two rounds", candidates=CANDIDATES, rounds=2)
        late = np.array([bool(kept.outcome.refinements) for kept in two])
        figures = {"went_on": float(late.mean())}
        for name, kept in (("one_round", one), ("two_rounds", two)):
            right = self._right(kept)
            figures[f"won_{name}"] = float(right.mean())
            figures[f"won_late_{name}"] = float(right[late].mean()) if late.any() else 0.0
        return figures

    def _run(self, title: str, **values: int) -> Sequence[Kept]:
        asked = {"mode": "keywords", "collection": LOOKS, "passages": 0, "references": 1}
        asked |= {"reference_scale": STRENGTH, **values}
        rows = [
            {"keywords": world.prompt(scene), "seed": seed, **asked}
            for seed, scene in enumerate(self._scenes)
        ]
        return self._chain.run(title, self._chain.jobs(rows))

    def _right(self, kept: Sequence[Kept]) -> Any:
        asked = map(world.prompt, self._scenes)
        return np.array([each.shows(look) for each, look in zip(kept, asked, strict=True)])
