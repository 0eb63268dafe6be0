"""Images in the knowledge base: taken in, found, and handed on with their receipts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient

from examples.shapes import world
from pipeline.errors import JobError
from pipeline.job import Context, Job
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.rows import RawRow
from pipeline.media.image import to_image
from pipeline.media.image_store import KNOWLEDGE, ImageStore
from pipeline.models import Models
from pipeline.models.clip import Clip
from pipeline.profile import Profile, QdrantProfile
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.images import embedded
from pipeline.retrieval.ingest import IngestReport, Library, ingest
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.retrieval.retriever import QdrantRetriever
from pipeline.storage.folder import FolderStore
from pipeline.telemetry import metered
from tests.harness.libraries import library

SEEN = ["red circle", "red square", "blue circle", "blue star"]


@pytest.fixture(scope="module")
def encoder(models_root: Path) -> Clip:
    return Clip(Models(models_root, "cpu"), "open_clip", "image_encoder")


@pytest.fixture
def images(tmp_path: Path, encoder: Clip) -> Library:
    return library(QdrantClient(":memory:"), tmp_path / "store", images=encoder)


def draw(path: Path, look: str, seed: int = 0) -> None:
    colour, shape = look.split()
    thing = world.Thing(shape, colour, "large", "center")
    scene = world.Scene((thing,), "gray")
    Image.fromarray(world.draw(scene, np.random.default_rng(seed))).save(path)


def folder(root: Path, *rows: dict[str, object]) -> Path:
    root.mkdir(exist_ok=True)
    for number, look in enumerate(SEEN):
        draw(root / f"{number}.png", look)
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def asked(keywords: str, references: int = 1, **values: object) -> Job:
    row = {
        "keywords": keywords,
        "collection": "looks",
        "references": references,
        "passages": 0,
    } | values
    made = JobBuilder(Profile.load("shapes"), Overrides()).build(RawRow(1, row))
    assert isinstance(made, Job)
    return made


def retriever(images: Library, **settings: float) -> QdrantRetriever:
    return QdrantRetriever(lambda: images.client, images.embedders, QdrantProfile(**settings))


def sources(context: Context) -> list[str]:
    return [reference.source for reference in context.references]


@pytest.mark.parametrize("look", SEEN)
def test_an_image_alone_is_found_by_what_it_shows(images, tmp_path: Path, look: str) -> None:
    ingest(images, folder(tmp_path / "looks"), "looks")
    found = retriever(images).retrieve(asked(f"a large {look} on a gray background"))
    assert sources(found) == [f"{SEEN.index(look)}.png"]
    assert not found.passages


def test_a_pair_is_found_by_its_words(images, tmp_path: Path) -> None:
    brands = ("Nexo", "Solano", "Korvax")
    others = [{"text": f"The sign of {n}.", "image": f"{i}.png"} for i, n in enumerate(brands)]
    row = {
        "text": "The sign of Viora.",
        "image": "3.png",
        "source": "brandbook",
        "license": "CC-BY-4.0",
        "tags": ["brand"],
    }
    ingest(images, folder(tmp_path / "looks", *others, row), "looks")
    find = retriever(images).retrieve
    for brand in brands:
        assert find(asked(f"{brand} sign")).references[0].text == f"The sign of {brand}."
    assert not find(asked("Zorvane poster", references=4)).references
    (found,) = find(asked("Viora sign", reference_scale=0.7)).references
    assert found.relevance is not None
    assert (found.text, found.source) == ("The sign of Viora.", "brandbook")
    assert (found.license, found.tags, found.scale) == ("CC-BY-4.0", ("brand",), 0.7)
    kept = images.image_store.get(found.image)
    original = np.asarray(Image.open(tmp_path / "looks" / "3.png"))
    assert (np.round(kept * 255) == original).all()
    assert found.image.startswith("knowledge/images/")


def test_what_is_recorded_gives_the_same_embedding_again(images, tmp_path: Path) -> None:
    ingest(images, folder(tmp_path / "looks"), "looks")
    found = retriever(images, image_norm=3.0).retrieve(asked("red circle", references=2))
    recorded = Context.model_validate_json(found.model_dump_json())
    assert all(not reference.embedding for reference in recorded.references)
    encoder = images.embedders.images
    assert encoder
    again = embedded(recorded, encoder, images.image_store, 3.0)
    for left, right in zip(found.references, again.references, strict=True):
        assert np.linalg.norm(left.embedding) == pytest.approx(3.0)
        assert left.embedding == pytest.approx(right.embedding, abs=1e-4)


def test_images_that_are_nearly_the_same_are_taken_once(images, tmp_path: Path) -> None:
    root = folder(tmp_path / "looks")
    for seed in range(1, 5):
        draw(root / f"0-{seed}.png", "red circle", seed)
    ingest(images, root, "looks")
    job = asked("a large red circle on a gray background", references=3)
    plenty = sources(retriever(images, alike=1.0).retrieve(job))
    assert all(source.startswith("0") for source in plenty)
    several = sources(retriever(images, alike=0.9).retrieve(job))
    assert len(several) == 3
    assert sum(source.startswith("0") for source in several) == 1
    assert several[0] == plenty[0]


def test_only_what_was_asked_for_is_found(images, tmp_path: Path) -> None:
    rows = [
        {"text": "a sign", "image": "0.png", "license": "MIT", "tags": ["old", "sign"]},
        {"text": "a sign", "image": "2.png", "license": "CC0", "tags": ["new", "sign"]},
        {"text": "a sign", "image": "3.png", "license": "GPL", "tags": ["new"]},
        {"text": "a sign in words", "license": "CC0", "tags": ["new", "sign"]},
    ]
    ingest(images, folder(tmp_path / "looks", *rows), "looks")
    find = retriever(images, alike=1.0).retrieve

    def licenses(**values: object) -> set[str]:
        return {each.license for each in find(asked("a sign", references=8, **values)).references}

    assert licenses(tags="new") == {"CC0", "GPL"}
    assert licenses(tags="new|sign") == {"CC0"}
    assert licenses(licenses="CC0|MIT") == {"CC0", "MIT"}
    both = find(asked("a sign in words", references=8, passages=8, tags="sign", licenses="CC0"))
    assert {passage.text for passage in both.passages} == {"a sign", "a sign in words"}
    assert [reference.text for reference in both.references] == ["a sign"]
    assert sorted(passage.text for passage in both.texts) == ["a sign", "a sign in words"]
    said = find(asked("a sign", references=8, passages=0, licenses="CC0")).texts
    assert [passage.text for passage in said] == ["a sign"]


def test_ingesting_again_changes_nothing_but_what_has_changed(images, tmp_path: Path) -> None:
    root = folder(tmp_path / "looks", {"text": "a sign", "image": "0.png"})

    def counts(report: IngestReport) -> tuple[int, int, int, int]:
        return report.added, report.changed, report.unchanged, report.removed

    assert counts(ingest(images, root, "looks")) == (4, 0, 0, 0)
    assert counts(ingest(images, root, "looks")) == (0, 0, 4, 0)
    draw(root / "3.png", "blue star", seed=7)
    assert counts(ingest(images, root, "looks")) == (1, 0, 3, 1)


def test_words_beyond_the_window_are_told(images, tmp_path: Path) -> None:
    root = folder(
        tmp_path / "looks",
        {"text": "a sign " * 30, "image": "0.png"},
        {"text": "red", "image": "1.png"},
        {"text": "no image's " * 30},
    )
    assert ingest(images, root, "looks").cut == 1
    for keywords, told in (("a sign " * 30, 1), ("a sign", 0)):
        with metered() as meter:
            retriever(images).retrieve(asked(keywords))
        assert len([said for said in meter.notices if "finds images read" in said]) == told


def test_what_is_no_image_is_told_and_the_rest_goes_in(images, tmp_path: Path) -> None:
    root = folder(tmp_path / "looks")
    (root / "evil.png").write_bytes(b"GIF89a" + b"\0" * 100)
    report = ingest(images, root, "looks")
    assert report.added == len(SEEN)
    (bad,) = report.bad
    assert (bad.file, "not a PNG, JPEG or WebP" in bad.reason) == ("evil.png", True)


def test_blocked_words_stay_outside(tmp_path: Path, encoder: Clip) -> None:
    store = tmp_path / "store"
    strict = library(QdrantClient(":memory:"), store, images=encoder, blocked=("gore",))
    root = folder(tmp_path / "looks", {"text": "much gore", "image": "0.png"})
    report = ingest(strict, root, "looks")
    assert report.added == len(SEEN) - 1
    assert len(report.bad) == 1


def test_without_an_encoder_texts_go_in_and_images_are_told(tmp_path: Path) -> None:
    words = library(QdrantClient(":memory:"), tmp_path / "store")
    root = folder(tmp_path / "looks", {"text": "a sign"})
    report = ingest(words, root, "looks")
    assert (report.added, len(report.bad)) == (1, len(SEEN))
    assert "retrieval.image_encoder" in report.bad[0].reason
    with pytest.raises(JobError, match=r"retrieval\.image_encoder"):
        retriever(words).retrieve(asked("a sign"))


def test_a_profile_that_embeds_no_images_adds_none(images, tmp_path: Path) -> None:
    ingest(images, folder(tmp_path / "looks"), "looks")
    words = library(images.client, tmp_path / "store")
    draw(tmp_path / "new.png", "blue heart")
    (bad,) = ingest(words, tmp_path / "new.png", "looks").bad
    assert "retrieval.image_encoder" in bad.reason


def test_a_collection_of_another_encoder(images, tmp_path: Path) -> None:
    class Other(Clip):
        def __init__(self) -> None:
            self.name, self.size = "other", 128

    ingest(images, folder(tmp_path / "looks"), "looks")
    embedders = Embedders(HashedEmbedder(), Other())
    other = QdrantRetriever(lambda: images.client, embedders, QdrantProfile())
    with pytest.raises(JobError, match=r"embedded with open_clip@.*, not with other"):
        other.retrieve(asked("a sign"))


def test_the_image_store_keeps_pixels_alone(tmp_path: Path) -> None:
    image_store = ImageStore(FolderStore(tmp_path), KNOWLEDGE)
    image = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    key = image_store.put(to_image(image))
    assert image_store.put(to_image(image)) == key
    with Image.open(tmp_path / key) as file:
        assert not file.info
    assert np.abs(image_store.get(key) - image).max() <= 0.5 / 255 + 1e-6
