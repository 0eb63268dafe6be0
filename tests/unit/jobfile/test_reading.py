"""What is said beside a job file: its sheet, its encoding, its columns."""

import json
import re
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, JobFileError
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import Notice, input_names
from pipeline.jobfile.reading import SUFFIX, Reading, reading_of


def test_columns_that_are_mapped(read, beside, told: list[Notice]) -> None:
    beside(
        '[columns]\n"Product name" = "keywords"\n"Style" = "meta.style"\n"keywords" = "meta.tag"\n'
    )
    (job,) = read("Product name;Style;keywords;Brand\nred circle;bold;a,b;x\n")
    assert (job.keywords, job.style) == ("red circle", "")
    assert job.meta == {"style": "bold", "tag": "a,b", "brand": "x"}
    assert [notice.column for notice in told] == ["Product name", "Style", "keywords", "Brand"]


def test_a_mapped_column_that_the_file_lacks_is_told(read, beside, told: list[Notice]) -> None:
    beside('[columns]\n"Old name" = "style"\n')
    read("keywords\nred\n")
    assert [notice.column for notice in told] == ["Old name"]


def test_a_mapped_column_of_a_later_object_is_there(read, beside, told: list[Notice]) -> None:
    beside('[columns]\nBrand = "meta.brand"\nShop = "meta.shop"\n', ".jsonl")
    read('{"keywords": "red"}\n{"keywords": "red", "Brand": "x"}\n', ".jsonl")
    assert [notice.column for notice in told] == ["Brand", "Shop"]
    assert [notice.reason.split(" ")[0] for notice in told] == ["column", "the"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".xlsx", ".parquet"])
def test_a_column_that_is_left_out(
    read, beside, told: list[Notice], tmp_path: Path, suffix: str
) -> None:
    plain = read("keywords,Brand\nred,x\n")
    beside('[columns]\nStock = ""\nseed = ""\n', suffix)
    row, path = {"keywords": "red", "Stock": [3], "Brand": "x", "seed": "none"}, tmp_path / "made"
    if suffix == ".jsonl":
        path.write_text(json.dumps(row))
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif suffix == ".xlsx":
        book = openpyxl.Workbook()
        book.active.append(list(row))
        book.active.append(list(map(str, row.values())))
        book.save(path)
    else:
        path.write_text("keywords,Stock,Brand,seed\nred,[3],x,none\n")
    told.clear()
    (job,) = read(path.read_bytes(), suffix)
    assert (job.id, job.meta) == (plain[0].id, {"brand": "x"})
    assert "column 'Stock' left out" in [notice.reason for notice in told]


def test_what_is_beside_is_part_of_the_files_digest(tmp_path: Path, beside) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("keywords,a\nred,1\n")
    bare = file_digest(path)
    beside("")
    assert file_digest(path) == bare
    beside('[columns]\na = "seed"\n')
    assert file_digest(path) != bare


def test_a_mapped_column_may_name_images(tmp_path: Path, beside) -> None:
    (tmp_path / "jobs.csv").write_text("keywords,Photo\nred,a.png\n")
    assert list(input_names(tmp_path / "jobs.csv")) == []
    beside('[columns]\nPhoto = "image"\n')
    assert list(input_names(tmp_path / "jobs.csv")) == ["a.png"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('[columns]\na = "keyword"', "'keyword' is no column: of keywords"),
        ('[columns]\na = "meta.b c"', "is no column"),
        ("[columns]\na = 3", "columns.a"),
        ('encoding = "utf-9"', "'utf-9' is no encoding; cp1252"),
        ('encoding = "zlib"', "is no encoding"),
        ('encoding = "../x"', "is no encoding"),
        ('sheets = "A"', "sheets"),
        ('sheet = "A"', "sheet is for workbooks, .xlsx or .xlsm, and jobs.csv is none"),
        ("columns = ", "columns.toml"),
        ("x = " + "[" * 20_000, "columns.toml"),
        ("#" * 70_000, "longer than 64 KB"),
    ],
)
def test_what_cannot_be_beside_a_file(read, beside, said: str, reason: str) -> None:
    beside(said)
    with pytest.raises(JobFileError, match=re.escape(reason)):
        read("keywords\nred\n")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text == text.strip()
)


@given(st.dictionaries(TEXTS, st.sampled_from(["keywords", "meta.größe"])))
def test_it_is_read_as_it_was_written(tmp_path_factory, columns: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("said") / "jobs.xlsx"
    reading = Reading(sheet='a"b\\', columns=columns)
    path.with_name(path.name + SUFFIX).write_text(reading.toml(), encoding="utf-8")
    assert Reading.beside(path) == reading


def test_options_add_to_what_was_said() -> None:
    before = Reading(sheet="A", columns={"a": "style"})
    reading = reading_of("", "cp1252", ["Product=name = keywords", "a=meta.a"], before)
    assert (reading.sheet, reading.encoding) == ("A", "cp1252")
    assert reading.columns == {"a": "meta.a", "Product=name": "keywords"}
    for wrong in ("a", "=keywords", "a=nothing"):
        with pytest.raises(ConfigError, match=r"NAME=COLUMN|is no column"):
            reading_of("", "", [wrong], before)
