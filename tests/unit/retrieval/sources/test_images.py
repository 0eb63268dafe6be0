import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.retrieval.sources.chunks import LONGEST
from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import BadText, Text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images that nobody may open, beside one that it does not hold."""
    (tmp_path / "outside.png").write_bytes(b"secret")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.JPG", "deep/c.webp"):
        (tmp_path / "in" / name).write_bytes(b"not opened")
    return tmp_path / "in"


def named(folder: Path, *rows: dict[str, str], file: str = "facts.jsonl") -> list[Text | BadText]:
    (folder / file).write_text("\n".join(map(json.dumps, rows)))
    return list(read_texts(folder / file))


def test_a_folder_of_images_gives_one_text_for_each(folder: Path) -> None:
    assert list(read_texts(folder)) == [
        Text(image=folder / "a.png", title="a", source="a.png"),
        Text(image=folder / "deep/b.JPG", title="b", source="deep/b.JPG"),
        Text(image=folder / "deep/c.webp", title="c", source="deep/c.webp"),
    ]
    (alone,) = read_texts(folder / "deep" / "c.webp")
    assert (alone.image, alone.source) == (folder / "deep/c.webp", "c.webp")


def test_rows_name_images_from_their_own_folder(folder: Path) -> None:
    rows = [{"text": "A.", "image": "../a.png"}, {"image": "b.JPG", "license": "CC0"}]
    (folder / "deep" / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "facts.csv").write_text("text,image\nC.,deep/c.webp\n")
    parquet.write_table(pa.table({"image": ["deep/../a.png"]}), folder / "facts.parquet")
    assert list(read_texts(folder)) == [
        Text(text="A.", image=folder / "a.png", source="deep/facts.jsonl"),
        Text(image=folder / "deep/b.JPG", license="CC0", source="deep/facts.jsonl"),
        Text(text="C.", image=folder / "deep/c.webp", source="facts.csv"),
        Text(image=folder / "a.png", source="facts.parquet"),
    ]


def test_the_image_stays_with_the_first_piece(folder: Path) -> None:
    pieces = named(folder, {"text": "word " * 1000, "image": "a.png", "license": "CC0"})
    assert [piece.image for piece in pieces] == [folder / "a.png"] + [None] * (len(pieces) - 1)
    assert len(pieces) >= 5000 / LONGEST
    assert {piece.license for piece in pieces} == {"CC0"}


def test_a_text_of_which_nothing_is_left_leaves_the_image(folder: Path) -> None:
    (text,) = named(folder, {"text": "https://a.b", "image": "a.png"})
    assert (text.text, text.image) == ("", folder / "a.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("https://a.b/c.png", "an address"),
        ("file:///etc/a.png", "an address"),
        ("data:image/png;base64,AAAA", "an address"),
        ("{folder}/a.png", "an absolute path"),
        ("C:\\a.png", "an absolute path"),
        ("../outside.png", "leads out of the folder"),
        ("deep/../../outside.png", "leads out of the folder"),
        ("../missing.png", "leads out of the folder"),
        ("link.png", "leads out of the folder"),
        ("linked/outside.png", "leads out of the folder"),
        ("missing.png", "no such file"),
        ("folder.png", "no such file"),
        ("a.png/b.png", "no such file"),
        ("loop.png", "not a path"),
        ("a\0.png", "not a path"),
        ("a" * 5000 + ".png", "not a path"),
        ("facts.jsonl", "not a file ending in"),
        (".", "not a file ending in"),
    ],
)
def test_names_that_are_no_image_of_the_folder(folder: Path, name: str, reason: str) -> None:
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "loop.png").symlink_to("loop.png")
    bad, good = named(
        folder, {"text": "a", "image": name.format(folder=folder)}, {"text": "b", "image": "a.png"}
    )
    assert (bad.line, bad.reason.startswith("image: ")) == (1, True)
    assert reason in bad.reason
    assert good.image == folder / "a.png"


def test_links_within_the_folder_bring_an_image_once(folder: Path) -> None:
    (folder / "also.png").symlink_to("a.png")
    (folder / "out.png").symlink_to(folder.parent / "outside.png")
    first, *rest = read_texts(folder)
    assert (first.source, first.image) == ("a.png", folder / "a.png")
    assert [getattr(item, "image", None) for item in rest[:2]] == [
        folder / "deep/b.JPG",
        folder / "deep/c.webp",
    ]
    assert rest[2:] == [
        BadText(file="out.png", line=0, reason="leads out of the folder that is ingested")
    ]


def test_an_image_of_a_bad_row_is_not_taken_alone(folder: Path) -> None:
    (folder / "facts.jsonl").write_text('{"image": "a.png", "title": 3}')
    bad, *alone = read_texts(folder)
    assert bad.reason.startswith("title: ")
    assert [text.source for text in alone] == ["deep/b.JPG", "deep/c.webp"]


def test_a_folder_reached_through_a_link(folder: Path) -> None:
    (folder.parent / "way").symlink_to(folder)
    images = [text.image for text in read_texts(folder.parent / "way")]
    assert images[0] == folder / "a.png"


def test_a_name_that_is_no_utf8(folder: Path) -> None:
    (folder / "a.png").rename(folder / "\udcff.png")
    assert "?.png" in {text.source for text in read_texts(folder)}
