"""What a small Parquet file unfolds to stays small, or is not read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.errors import JobFileError
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import Profile
from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import BadText
from pipeline.tabular.parquet import PAGE_LIMIT, parquet_batches

MB = 1024 * 1024
HUGE = "x" * (PAGE_LIMIT + MB)


def written(folder: Path, column: str, values: Any, **settings: Any) -> Path:
    path = folder / "made.parquet"
    parquet.write_table(pa.table({column: values}), path, compression="zstd", **settings)
    assert path.stat().st_size < MB
    return path


@contextmanager
def memory_of_arrow() -> Iterator[Any]:
    usual, counting = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counting)
    try:
        yield counting
    finally:
        pa.set_memory_pool(usual)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("settings", [{"use_dictionary": False}, {"data_page_version": "2.0"}, {}])
def test_a_huge_cell_is_not_unpacked(
    tmp_path: Path, kind: pa.DataType, settings: dict[str, Any]
) -> None:
    path = written(tmp_path, "keywords", pa.array(["red", HUGE, "blue"], kind), **settings)
    with memory_of_arrow() as memory, pytest.raises(JobFileError, match="of more than 128 MB"):
        list(read_jobs(path, Profile.load("shapes"), Overrides()))
    assert memory.max_memory() < 4 * MB
    path = written(tmp_path, "text", pa.array(["red", HUGE, "blue"], kind), **settings)
    with memory_of_arrow() as memory:
        (bad,) = read_texts(path)
    assert isinstance(bad, BadText)
    assert "of more than 128 MB" in bad.reason
    assert memory.max_memory() < 4 * MB


@pytest.mark.parametrize("nested", [True, False])
def test_a_huge_cell_of_meta_is_not_unpacked(tmp_path: Path, nested: bool) -> None:
    cells = ["red", HUGE, "blue"]
    meta = {"meta": [{"a": cell} for cell in cells]} if nested else {"meta.a": cells}
    path = tmp_path / "made.parquet"
    parquet.write_table(pa.table({"keywords": ["a"] * 3} | meta), path, compression="zstd")
    with memory_of_arrow() as memory, pytest.raises(JobFileError, match="of more than 128 MB"):
        list(read_jobs(path, Profile.load("shapes"), Overrides()))
    assert memory.max_memory() < 4 * MB


def test_tags_that_unfold_are_not_read(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), ["x" * 1_000_000])
    tags = pa.ListArray.from_arrays(pa.array(range(0, 501, 5), pa.int32()), texts)
    path = tmp_path / "made.parquet"
    table = pa.table({"keywords": ["a"] * 100, "tags": tags})
    parquet.write_table(table, path, compression="zstd", store_schema=False)
    with memory_of_arrow() as memory:
        rows = list(read_jobs(path, Profile.load("shapes"), Overrides()))
    assert {row.reason for row in rows} == {"the field is longer than 2048 bytes"}
    assert memory.max_memory() < 64 * MB


def test_a_list_that_is_short_in_the_file_alone(tmp_path: Path) -> None:
    tags = pa.ListArray.from_arrays(
        pa.array([0, 1, 3_000_000], pa.int32()), pa.array(["a"] * 3_000_000)
    )
    path = tmp_path / "made.parquet"
    parquet.write_table(pa.table({"text": ["one", "two"], "tags": tags}), path)
    with memory_of_arrow() as memory:
        (bad,) = read_texts(path)
    assert isinstance(bad, BadText)
    assert "lists that are too long" in bad.reason
    assert memory.max_memory() < 4 * MB


@pytest.mark.parametrize("alike", [True, False])
def test_long_texts_are_read_few_at_a_time(tmp_path: Path, alike: bool) -> None:
    """Many short ones in the row group make the average small; an encoding leaves out beginnings
    that are alike."""
    long = ["x" * 200_000] * 1000
    texts = long if alike else ["a"] * 100_000 + long
    encoding = {"text": "DELTA_BYTE_ARRAY" if alike else "PLAIN"}
    path = written(
        tmp_path, "text", texts, use_dictionary=False, column_encoding=encoding, write_batch_size=64
    )
    with memory_of_arrow() as memory, parquet.ParquetFile(path) as file:
        batches = parquet_batches(path, file, ["text"], 1024, 16 * MB)
        assert sum(len(batch) for batch in batches) == len(texts)
    assert memory.max_memory() < 80 * MB


def test_whatever_stands_in_a_page_s_header(tmp_path: Path) -> None:
    path = written(tmp_path, "text", [f"fact {n}" for n in range(500)], use_dictionary=False)
    whole = path.read_bytes()
    for at in range(4, 40):
        for byte in (b"\x00", b"\xff", b"\x7c"):
            path.write_bytes(whole[:at] + byte + whole[at + 1 :])
            list(read_texts(path))  # or says what is wrong


def test_a_page_that_is_passed_over_is_missed(tmp_path: Path) -> None:
    for column in ("keywords", "text"):
        path = written(tmp_path, column, ["red"] * 5, use_dictionary=False)
        page = parquet.read_metadata(path).row_group(0).column(0).data_page_offset
        content = bytearray(path.read_bytes())
        content[page + 1] = 2  # the page says that it is an index
        path.write_bytes(content)
        if column == "text":
            (bad,) = read_texts(path)
            assert isinstance(bad, BadText)
            assert "5 of its 5 rows" in bad.reason
        else:
            with pytest.raises(JobFileError, match="5 of its 5 rows"):
                list(read_jobs(path, Profile.load("shapes"), Overrides()))
