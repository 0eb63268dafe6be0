from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.tables import ROW_LIMIT
from pipeline.retrieval.sources.texts import BadText, Text


def table(tmp_path: Path, columns: dict, **settings) -> list[Text | BadText]:
    parquet.write_table(pa.table(columns), tmp_path / "facts.parquet", **settings)
    return list(read_texts(tmp_path / "facts.parquet"))


def test_text_title_license_tags_and_source_are_read(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", "b"]).dictionary_encode(),
        "title": pa.array(["t", None], pa.large_string()),
        "license": pa.array(["CC0", ""]),
        "tags": [["u", " "], None],
        "source": pa.nulls(2),
        "more": [1, 2],
    }
    assert table(tmp_path, columns) == [
        Text(text="a", title="t", source="facts.parquet", license="CC0", tags=("u",)),
        Text(text="b", source="facts.parquet"),
    ]


def test_many_rows_are_read_in_order(tmp_path: Path) -> None:
    texts = table(tmp_path, {"text": [f"fact {n}" for n in range(5000)]}, row_group_size=3000)
    assert [text.text for text in texts] == [f"fact {n}" for n in range(5000)]


@pytest.mark.parametrize(
    ("text", "tags", "reason"),
    [
        (None, ["u"], "neither a text nor an image"),
        ("x" * (ROW_LIMIT + 1), [], "longer than"),
        ("x", ["u" * (ROW_LIMIT + 1)], "longer than"),
        ("x", ["u"] * 51, "tags: "),
        ("x", [None], "tags.0: "),
        (b"caf\xe9", [], "not valid UTF-8"),
    ],
)
def test_a_bad_row_is_reported_and_the_rest_goes_in(tmp_path: Path, text, tags, reason) -> None:
    texts = pa.array([t.encode() if isinstance(t, str) else t for t in ("a", text, "b")])
    offsets, data = texts.buffers()[1:]
    raw = pa.StringArray.from_buffers(3, offsets, data, texts.buffers()[0], texts.null_count)
    good, bad, last = table(tmp_path, {"text": raw, "tags": [[], tags, []]})
    assert (bad.file, bad.line) == ("facts.parquet", 2)
    assert reason in bad.reason
    assert [good, last] == [Text(text=t, source="facts.parquet") for t in "ab"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"words": ["a"]}, "no column"),
        ({"text": [1]}, "column text is int64, not text"),
        ({"text": ["a"], "image": [{"bytes": b"", "path": "a.png"}]}, "column image is struct"),
        ({"text": ["a"], "tags": ["u"]}, "column tags is string, not a list of texts"),
    ],
)
def test_columns_that_are_not_understood(tmp_path: Path, columns, reason) -> None:
    (bad,) = table(tmp_path, columns)
    assert bad.line == 0
    assert reason in bad.reason


def test_a_damaged_file(tmp_path: Path, read) -> None:
    table(tmp_path, {"text": [f"fact {n}" for n in range(1000)]})
    whole = (tmp_path / "facts.parquet").read_bytes()
    for content in (b"", whole[:-8], b"PAR1" + bytes(2000) + whole[2004:]):
        (bad,) = read(content, "facts.parquet")
        assert "not a readable Parquet file" in bad.reason


def test_a_text_that_stands_in_many_rows_is_in_memory_once(tmp_path: Path) -> None:
    long = "x" * 2_000_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1000), [long])
    path = tmp_path / "facts.parquet"
    parquet.write_table(pa.table({"text": column}), path, store_schema=False)
    before, most = pa.total_allocated_bytes(), 0
    for bad in read_texts(path):
        assert "longer than" in bad.reason
        most = max(most, pa.total_allocated_bytes() - before)
    assert len(long) < most < 10 * len(long)


def test_any_damage_is_reported(tmp_path: Path, read) -> None:
    table(tmp_path, {"text": ["a", "b"] * 50, "title": ["t"] * 100, "tags": [["u"], None] * 50})
    whole = (tmp_path / "facts.parquet").read_bytes()
    damaged = [whole[:at] + b"\xa4" + whole[at + 1 :] for at in range(0, len(whole), 3)]
    found = [item for content in damaged for item in read(content, "facts.parquet")]
    assert {type(item) for item in found} == {Text, BadText}
    assert "the file is damaged here" in {getattr(item, "reason", "") for item in found}
