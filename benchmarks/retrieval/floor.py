"""The sources that `retrieval.floor` keeps from rows which are about none, and those it costs.

The knowledge base is a crowded one (`benchmarks.retrieval.brands`) with a fifth of the brands of
`fact_recall`; each brand's fact has an image of its look. Rows that are about no source ask for a
look, for a brand that the knowledge base does not have, or for an everyday scene. `wrong_…` is the
share of them that get a source all the same, `…_0` the same without a floor; house rules, which are
about every image, do not count. `floor_recall` is the recall of facts among three passages, as a
share of what it is without a floor, by form in `floor_by_form`; `floor_recall_images` that of an
image among one.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from benchmarks.retrieval.brands import FORMS, SPELLED, Brand, book
from benchmarks.retrieval.chain import Chain, fill, write_rows
from examples.shapes import world
from examples.shapes.training.writer.passages import plain_taste
from examples.shapes.training.writer.words import pick
from pipeline.job import Context
from pipeline.profile import QdrantProfile
from pipeline.retrieval.retriever import QdrantRetriever

COLLECTION = "floor"
HOUSE = "house/"
PASSAGES = 3
EVERYDAY = (
    "a dog on the beach", "two cups of coffee on a wooden table", "an old train in the snow",
    "portrait of a woman with a scarf", "a bowl of ramen with an egg", "city skyline at night",
    "a cat asleep on a windowsill", "children flying kites in a meadow", "a red sports car",
    "a lighthouse in a storm", "an astronaut riding a horse", "a forest path in autumn",
    "a bowl of fresh fruit", "a violin on a chair", "hot air balloons over a valley",
    "a robot watering plants", "a bridge in the fog", "a stack of old books", "a bakery window",
    "a mountain lake at sunrise", "an owl on a branch", "a market in the rain",
    "a bicycle against a brick wall", "a glass of orange juice", "a fishing boat in the harbour",
    "a knight in shining armour", "a desk with a laptop and a lamp", "a field of tulips",
    "a pizza fresh from the oven", "a whale under the sea", "a ballet dancer on stage",
    "a wooden cabin by the river", "a birthday cake with candles", "an empty swimming pool",
    "a wolf howling at the moon", "a street musician with a guitar", "a plate of sushi",
    "a castle on a hill", "a tent below the stars", "a bouquet of roses",
)  # fmt: skip


class Floor:
    """The knowledge base, filled, and the rows that ask it."""

    def __init__(self, chain: Chain, facts: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        assert isinstance(chain.profile.retrieval, QdrantProfile)
        self._chain, self._profile = chain, chain.profile.retrieval
        whole = book(rng, facts, plain_taste(), crowded=True)
        known = {brand.name for brand in whole.brands}
        others = [b for b in book(rng, facts, plain_taste()).brands if b.name not in known]
        self._fitting = [
            (brand, form, ask(brand.name, rng))
            for brand in whole.brands
            for form, ask in FORMS.items()
        ]
        self._without = {
            "look": [world.prompt(world.sample_scene(rng)) for _ in range(facts)],
            "brand": [FORMS[pick(rng, SPELLED)](brand.name, rng) for brand in others],
            "everyday": list(EVERYDAY),
        }
        self._library = chain.library()
        images = {brand.source: self._draw(brand, rng) for brand in whole.brands}
        rows = [row | images.get(row["source"], {}) for row in whole.rows]
        fill(self._library, COLLECTION, write_rows(chain.sources / "book.jsonl", rows), len(rows))

    def measure(self) -> dict[str, Any]:
        """The shares with the profile's floor and without one."""
        figures = dict[str, Any]()
        for suffix, floor in (("", self._profile.floor), ("_0", 0.0)):
            for kind, rows in self._without.items():
                found = self._found(kind, rows, floor)
                figures[f"wrong_passages_{kind}{suffix}"] = fmean(map(_passages, found))
                figures[f"wrong_images_{kind}{suffix}"] = fmean(bool(f.references) for f in found)
        rows = [keywords for _, _, keywords in self._fitting]
        answers = [self._found("recall", rows, floor) for floor in (0.0, self._profile.floor)]
        self._library.client.close()
        brands, forms = [b for b, _, _ in self._fitting], [form for _, form, _ in self._fitting]
        texts, images = (
            np.array([[has(b, c) for b, c in zip(brands, each, strict=True)] for each in answers])
            for has in (_fact, _image)
        )
        return figures | {
            "floor_recall": _ratio(texts),
            "floor_recall_images": _ratio(images),
            "floor_by_form": {
                form: _ratio(texts[:, [each == form for each in forms]]) for form in FORMS
            },
        }

    def _draw(self, brand: Brand, rng: np.random.Generator) -> dict[str, str]:
        file = brand.source.replace("/", "-") + ".png"
        Image.fromarray(world.draw(brand.look.scene, rng)).save(self._chain.sources / file)
        return {"image": file}

    def _found(self, title: str, rows: Sequence[str], floor: float | None) -> list[Context]:
        """The answer to each row's keywords."""
        profile, library = self._profile.model_copy(update={"floor": floor}), self._library
        retriever = QdrantRetriever(lambda: library.client, library.embedders, profile)
        asked = {"collection": COLLECTION, "passages": PASSAGES, "references": 1}
        jobs = self._chain.jobs({"keywords": keywords, **asked} for keywords in rows)
        return [retriever.retrieve(job) for job in track(jobs, title, console=Console(stderr=True))]


def _passages(found: Context) -> bool:
    """True where a passage other than a house rule is there."""
    return any(not each.source.startswith(HOUSE) for each in found.passages)


def _fact(brand: Brand, found: Context) -> bool:
    return brand.source in {each.source for each in found.passages}


def _image(brand: Brand, found: Context) -> bool:
    return brand.source in {each.source for each in found.references}


def _ratio(hits: NDArray[np.bool_]) -> float:
    """The hits with a floor, as a share of those without."""
    without, with_floor = hits.sum(axis=1)
    return float(with_floor / without) if without else 0.0
