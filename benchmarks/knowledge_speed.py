"""The speed of a knowledge base: facts taken in, and answers, at a size.

Invented facts of one sentence, in one JSONL file, with the hashed embedding: on the server that
PRESSRUN_QDRANT_URL names, else in Qdrant's local mode in a folder of its own. `ingest_per_s` are
facts per second the first time, `again_per_s` when the same file is ingested once more. The
questions are asked one after another, for four passages each.
"""

import json
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, track

from benchmarks.common import arguments, show
from examples.shapes import world
from examples.shapes.training.writer.words import SUFFIXES, pick, word
from pipeline.assemble.knowledge import open_library
from pipeline.job import Job
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.rows import RawRow
from pipeline.profile import QdrantProfile
from pipeline.retrieval.ingest import IngestReport, Library, ingest
from pipeline.retrieval.retriever import QdrantRetriever
from pipeline.settings import Settings, load_settings

# texts alone: vectors of images would only take memory
PROFILE = 'extends = "shapes"\n[retrieval]\nimage_encoder = ""\n[renderer]\nimage_adapter = ""\n'
PASSAGES = 4


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--facts", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=90_001)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        figures = measure(given.facts, given.queries, Path(folder), given.seed)
    show("Knowledge base", figures)
    if given.json:
        print(json.dumps(figures))


def measure(facts: int, queries: int, workdir: Path, seed: int) -> dict[str, Any]:
    """Ingest so many facts twice and ask; answers rates, and milliseconds of an answer."""
    rng = np.random.default_rng(seed)
    profile, file, collection = workdir / "profile.toml", workdir / "facts.jsonl", uuid.uuid4().hex
    profile.write_text(PROFILE)
    settings = load_settings(
        profile=str(profile), home=workdir / "home", store=str(workdir / "out")
    )
    names = write_facts(file, facts, rng)
    with opened(settings, collection) as library:
        first, rate = timed_ingest(library, file, collection, facts, "ingest")
        again, again_rate = timed_ingest(library, file, collection, facts, "ingest again")
        chosen = settings.chosen_profile.retrieval
        assert isinstance(chosen, QdrantProfile)
        retriever = QdrantRetriever(lambda: library.client, library.embedders, chosen)
        jobs = questions(settings, collection, [pick(rng, names) for _ in range(queries)])
        waits = timed(retriever.retrieve, jobs)
    return {
        "where": "server" if settings.qdrant_url else "local mode",
        "facts": facts,
        "added": first.added,
        "unchanged": again.unchanged,
        "ingest_per_s": rate,
        "again_per_s": again_rate,
        "queries": queries,
        "p50_ms": float(np.percentile(waits, 50)),
        "p95_ms": float(np.percentile(waits, 95)),
    }


def write_facts(path: Path, count: int, rng: np.random.Generator) -> list[str]:
    """Write facts; returns the brands' names, of which some may stand twice."""
    names = [f"{word(rng, 2, 4).capitalize()} {pick(rng, SUFFIXES)}" for _ in range(count)]
    with path.open("w", encoding="utf-8") as file:
        for number, name in enumerate(names):
            text = f"The {name} logo is {world.prompt(world.sample_scene(rng))}."
            print(json.dumps({"text": text, "source": f"brandbook/{number}.md"}), file=file)
    return names


@contextmanager
def opened(settings: Settings, collection: str) -> Iterator[Library]:
    """The library; a server is left without the collection."""
    library = open_library(settings, settings.chosen_profile)
    try:
        yield library
    finally:
        library.client.delete_collection(collection)
        library.client.close()


def timed_ingest(
    library: Library, path: Path, collection: str, facts: int, title: str
) -> tuple[IngestReport, float]:
    """The ingest's report, and the number of facts in a second."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=facts)
        begun = perf_counter()
        report = ingest(library, path, collection, lambda count: progress.advance(task, count))
        return report, facts / (perf_counter() - begun)


def questions(settings: Settings, collection: str, names: list[str]) -> list[Job]:
    """A job for each name."""
    builder = JobBuilder(settings.chosen_profile, Overrides(collection=collection))
    made = [
        builder.build(RawRow(1, {"keywords": f"{name} logo", "passages": PASSAGES}))
        for name in names
    ]
    return [job for job in made if isinstance(job, Job)]


def timed(ask: Callable[[Job], object], jobs: list[Job]) -> list[float]:
    """Milliseconds of each answer; a first one, that opens everything, is not counted."""
    ask(jobs[0])
    waits = list[float]()
    for job in track(jobs, "questions", console=Console(stderr=True)):
        begun = perf_counter()
        ask(job)
        waits.append(1000 * (perf_counter() - begun))
    return waits


if __name__ == "__main__":
    main()
