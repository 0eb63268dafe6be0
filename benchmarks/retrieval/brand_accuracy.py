"""The share of images that show the looks of brands that only a knowledge base tells.

Each row asks for the logo of an invented brand. `accuracy_…` is the share of the accepted images
in which the umpire sees all that the brand's look says; `accepted_…` the share of the rows whose
image was accepted; `won_…` of the rows whose image was both. The ways:

- `with`: as a worker does, four passages for each job;
- `without`: nothing is retrieved;
- `shuffled`: each job gets what was found for another;
- `copy`: no render, but the image of the knowledge base that is nearest to the keywords;
- `oracle`: the keywords are the look itself, and nothing is retrieved;
- `held_out`: as `with`, on kinds of names and sentences that the writer's training never had.

`chance` is the share of the other rows' images, of the way `with`, that show a row's look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from PIL import Image

from benchmarks.retrieval.brands import Book, Brand, asked, book
from benchmarks.retrieval.chain import Chain, Kept, Rows, fill, write_rows
from examples.shapes import umpire, world
from examples.shapes.training.writer.passages import held_out_taste, plain_taste
from examples.shapes.world import Scene
from pipeline.job import Context, Job
from pipeline.ports import Retriever

BOOK, HELD_OUT = "book", "held-out"
NOTHING = {"passages": 0}


@dataclass(frozen=True)
class Shuffled:
    """A Retriever that answers with what it finds for another job."""

    retriever: Retriever
    others: dict[str, Job]

    def retrieve(self, job: Job) -> Context:
        """The other job's context."""
        return self.retriever.retrieve(self.others[job.id])


class BrandAccuracy:
    """Two brand books, each fact with an image of its look, and the ways to ask for them."""

    def __init__(self, chain: Chain, rows: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._chain = chain
        self._books = {
            BOOK: book(rng, rows, plain_taste()),
            HELD_OUT: book(rng, min(rows, 100), held_out_taste()),
        }
        self._images = [world.draw(b.look.scene, rng) for b in self._books[BOOK].brands]
        self._keywords = {
            name: [asked(brand, rng) for brand in each.brands] for name, each in self._books.items()
        }
        self._fill()

    def measure(self) -> dict[str, float]:
        """The figures of each way."""
        brands = self._books[BOOK].brands
        jobs = self._jobs(BOOK)
        others = dict(zip((job.id for job in jobs), jobs[1:] + jobs[:1], strict=True))
        shuffled = Shuffled(self._chain.ports.retriever, others)
        found = self._chain.run("with retrieval", jobs)
        without = [job.model_copy(update=NOTHING) for job in jobs]
        outright = self._chain.jobs({"keywords": b.look.prompt, **NOTHING} for b in brands)
        ways = {
            "with": (found, brands),
            "without": (self._chain.run("without", without), brands),
            "shuffled": (self._chain.run("shuffled", jobs, shuffled), brands),
            "oracle": (self._chain.run("oracle", outright), brands),
            "held_out": (
                self._chain.run("held-out", self._jobs(HELD_OUT)),
                self._books[HELD_OUT].brands,
            ),
        }
        figures = dict[str, float]()
        for name, (kept, asked_brands) in ways.items():
            figures |= _figures(name, kept, asked_brands)
        return figures | {
            "accuracy_copy": self._copied(jobs),
            "chance": _chance(found, brands),
            "with_of_oracle": figures["accuracy_with"] / max(figures["accuracy_oracle"], 1e-9),
        }

    def _fill(self) -> None:
        folder = self._chain.sources
        for at, image in enumerate(self._images):
            Image.fromarray(image).save(folder / f"{at}.png")
        library = self._chain.library()
        for name, each in self._books.items():
            rows = _imaged(each) if name == BOOK else each.rows
            fill(library, name, write_rows(folder / f"{name}.jsonl", rows), len(each.rows))
        library.client.close()

    def _jobs(self, collection: str) -> list[Job]:
        words = self._keywords[collection]
        return self._chain.jobs({"keywords": each, "collection": collection} for each in words)

    def _copied(self, jobs: Sequence[Job]) -> float:
        """The share of the rows whose nearest image shows their brand's look."""
        brands, retriever = self._books[BOOK].brands, self._chain.ports.retriever
        drawn = [image.astype(np.float32) / np.float32(255) for image in self._images]
        readings = self._chain.read(drawn)
        shown = dict(zip((brand.source for brand in brands), readings, strict=True))
        right = []
        for job, brand in zip(jobs, brands, strict=True):
            one = job.model_copy(update={"passages": 0, "references": 1, "reference_scale": 0.0})
            look = brand.look.prompt
            nearest = retriever.retrieve(one).references
            right.append(any(umpire.confirms(shown[each.source], look) for each in nearest))
        return fmean(right)


def _imaged(whole: Book) -> Rows:
    """The book's rows, each fact with its brand's image."""
    images = {brand.source: f"{at}.png" for at, brand in enumerate(whole.brands)}
    return [
        row | ({"image": images[row["source"]]} if row["source"] in images else {})
        for row in whole.rows
    ]


def _figures(name: str, kept: Sequence[Kept], brands: Sequence[Brand]) -> dict[str, float]:
    right = [k.shows(brand.look.prompt) for k, brand in zip(kept, brands, strict=True)]
    won = [r for k, r in zip(kept, right, strict=True) if k.accepted]
    return {
        f"accuracy_{name}": fmean(won) if won else 0.0,
        f"accepted_{name}": len(won) / len(kept),
        f"won_{name}": sum(won) / len(kept),
    }


def _chance(kept: Sequence[Kept], brands: Sequence[Brand]) -> float:
    said = [world.parse(brand.look.prompt) for brand in brands]
    readings: list[Scene | None] = [each.reading for each in kept]
    return fmean(
        reading is not None and world.agrees(wanted, reading)
        for at, wanted in enumerate(said)
        for other, reading in enumerate(readings)
        if other != at
    )
