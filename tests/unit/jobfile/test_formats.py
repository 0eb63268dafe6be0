import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobFileError
from pipeline.job import BadRow, Job
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.jobfile.rows import ROW_LIMIT
from pipeline.profile import Profile

ROWS: list[dict[str, Any]] = [
    {"keywords": "red circle", "candidates": 2, "guidance": 3.5, "meta.product": "mug"},
    {"keywords": "blue star, large", "seed": 7},
    {"keywords": "Café Élan"},
]


def as_csv(delimiter: str) -> str:
    columns = ["keywords", "candidates", "guidance", "seed", "meta.product"]
    cells = [[str(row.get(column, "")) for column in columns] for row in ROWS]
    quoted = [[f'"{cell}"' if delimiter in cell else cell for cell in row] for row in cells]
    return "\n".join(delimiter.join(row) for row in [columns, *quoted])


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(
        pa.table({name: [row.get(name) for row in rows] for name in names}), path, row_group_size=2
    )
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_job_has_one_id_in_whatever_file(read, tmp_path, delimiter, start, ending) -> None:
    from_csv = read(start + as_csv(delimiter).replace("\n", ending).encode())
    from_jsonl = read("\n".join(map(json.dumps, ROWS)), ".jsonl")
    parquet = as_parquet(tmp_path / "jobs.parquet", ROWS)
    from_parquet = list(read_jobs(parquet, Profile.load("shapes"), Overrides()))
    assert all(isinstance(row, Job) for row in from_csv)
    assert [row.id for row in from_csv] == [row.id for row in from_jsonl]
    assert [row.id for row in from_csv] == [row.id for row in from_parquet]
    assert [row.row for row in from_csv] == [2, 3, 4]
    assert [row.row for row in from_jsonl] == [1, 2, 3] == [row.row for row in from_parquet]
    assert from_csv[0].meta == {"product": "mug"}


def test_rows_are_counted_by_the_line_they_begin_at(read) -> None:
    content = 'keywords,style\na,"two\nlines"\n\nb,\n"c\r\nd",x\ne,\n'
    assert [(row.row, row.keywords) for row in read(content)] == [
        (2, "a"),
        (5, "b"),
        (6, "c d"),
        (8, "e"),
    ]


def test_a_quote_left_open_costs_its_own_row_alone(read) -> None:
    rows = read('keywords\n"red circle\nblue star\ngreen ring\n')
    assert [row.row for row in rows] == [2, 3, 4]
    assert isinstance(rows[0], BadRow)
    assert "never closed" in rows[0].reason
    assert [row.keywords for row in rows[1:]] == ["blue star", "green ring"]


def test_a_row_of_many_lines_is_read_again_no_further_than_a_bound(read) -> None:
    # each line closes the quote before it and opens its own
    rows = read("keywords,style\n" + 'a","\n' * 1_000)
    assert len(rows) == 1_000
    assert "longer than 256 lines" in rows[0].reason


@pytest.mark.parametrize("before", ["red circle,", '"red circle","', "red,"])
def test_a_field_that_is_much_too_long_is_named(read, before: str) -> None:
    bad, good = read(f"keywords,style\n{before}{'x' * 10_000_000}\nblue star,\n")
    assert isinstance(bad, BadRow)
    assert (bad.row, bad.column, bad.reason) == (2, "style", "the row is longer than 64 KB")
    assert (good.row, good.keywords) == (3, "blue star")


@pytest.mark.parametrize(
    ("before", "column"),
    [
        ('{"keywords": "', "keywords"),
        ('{"keywords": "a", "meta.note" :\t"', "meta.note"),
        ('{"keywords": "a", "stray": "', ""),
        ('["', ""),
        ("[" * 60_000, ""),
    ],
)
def test_a_text_that_is_much_too_long_is_named(read, before: str, column: str) -> None:
    content = f'{{"keywords": "a"}}\n{before}{"x" * 10_000_000}"}}\n{{"keywords": "b"}}\n'
    first, bad, last = read(content, ".jsonl")
    assert isinstance(bad, BadRow)
    assert (bad.row, bad.column, bad.reason) == (2, column, "the row is longer than 64 KB")
    assert (first.keywords, last.keywords, last.row) == ("a", "b", 3)


def test_a_quote_left_open_in_a_long_file(read) -> None:
    rows = read('keywords\n"red circle\n' + "blue star\n" * 8_000)
    assert [row.row for row in rows] == list(range(2, 8_003))
    assert [isinstance(row, BadRow) for row in rows[:3]] == [True, False, False]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("red,circle,large", "3 fields under 2 columns"),
        ('"red" circle,', "closing double quote"),
        ("red\rcircle,", "carriage return"),
        ("x" * (ROW_LIMIT + 1), "longer than 64 KB"),
        ("x" * 10_000_000, "longer than 64 KB"),
        (",large", "keywords is empty"),
    ],
)
def test_a_bad_line_of_a_csv(read, line: str, reason: str) -> None:
    bad, good = read(f"keywords,style\n{line}\nred circle,\n")
    assert isinstance(bad, BadRow)
    assert bad.row == 2
    assert reason in bad.reason
    assert isinstance(good, Job)
    assert good.row == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"keywords": "red circle"', "not JSON"),
        ('{"keywords": Infinity}', "Infinity is not a number"),
        ('{"keywords": "a", "keywords": "b"}', "stands twice"),
        ('["red circle"]', "not a JSON object"),
        ("[" * 60_000, "nested too deep"),
        ('{"keywords": "%s"}' % ("x" * ROW_LIMIT), "longer than 64 KB"),
        ('{"keywords": true}', "neither text nor a number"),
        ('{"keywords": ["red"]}', "neither text nor a number"),
        ('{"keywords": "a", "meta": "b"}', "meta is an object"),
        ('{"keywords": "a", "meta": {"b c": "d"}}', "a name after meta."),
        ('{"keywords": "a", "meta": {"b": 1}, "meta.b": 2}', "stands twice"),
        ('{"keyword": "a"}', "did you mean 'keywords'?"),
        ('{"style": "large"}', "no column 'keywords'"),
        ("{}", "no column 'keywords'"),
        ('{"keywords": null}', "keywords is empty"),
        ('{"keywords": "\\ud800"}', "not valid UTF-8"),
        ('{"keywords": %s}' % ("9" * 5000), "not JSON"),
    ],
)
def test_a_bad_line_of_a_jsonl(read, line: str, reason: str) -> None:
    first, bad, last = read(f'{{"keywords": "a"}}\n{line}\n\n{{"keywords": "b"}}', ".jsonl")
    assert isinstance(bad, BadRow)
    assert bad.row == 2
    assert reason in bad.reason
    assert (first.row, last.row) == (1, 4)
    assert isinstance(last, Job)


@pytest.mark.parametrize(
    ("suffix", "before", "after"),
    [(".csv", b"keywords\n", b"\n"), (".jsonl", b'{"keywords": "', b'"}\n')],
)
def test_a_row_that_is_not_utf8(read, suffix: str, before: bytes, after: bytes) -> None:
    (bad,) = read(before + "Café".encode("latin-1") + after, suffix)
    assert isinstance(bad, BadRow)
    assert "not valid UTF-8" in bad.reason


def test_meta_as_an_object(read) -> None:
    (job,) = read('{"keywords": "a", "meta": {"n": 3, "x": null}, "meta.y": "z"}', ".jsonl")
    assert job.meta == {"n": "3", "y": "z"}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("keyword", "did you mean 'keywords'?"),
        ("style,keyword", "did you mean 'keywords'?"),
        ("keywords,meta", "after meta."),
        ("keywords,meta.a b", "after meta."),
        ("id,style", "no column 'keywords'"),
        ("keywords,Style,Style", "column 'Style' stands twice; rename one in the file"),
        ("", "no column 'keywords'"),
        ('"keywords', "header"),
        ("k" * 70_000, "header"),
    ],
)
def test_a_header_that_is_not_understood(read, header: str, reason: str) -> None:
    with pytest.raises(JobFileError, match=reason.replace("?", r"\?")):
        read(f"{header}\nred circle\n")


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ('{"keyword": "red circle"}', "Line 1: unknown column 'keyword'.*did you mean 'keywords'"),
        ('{"style": "large"}', "Line 1: there is no column 'keywords'"),
        ('{"keywords": "a", "meta": {"b c": 1}}', "Line 1: .* after meta."),
    ],
)
def test_the_first_object_stands_for_a_header(read, first: str, reason: str) -> None:
    with pytest.raises(JobFileError, match=reason):
        read(f"{first}\n", ".jsonl")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("suffix", "text"), [(".csv", "keywords\nred\n"), (".jsonl", '{"keywords": "red"}')]
)
def test_wide_letters_without_a_mark(read, suffix: str, text: str, encoding: str) -> None:
    with pytest.raises(JobFileError, match=r"not UTF-8.*name its encoding, utf-16-le or"):
        read(text.encode(encoding), suffix)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_spreadsheet_under_a_texts_name(read, suffix: str) -> None:
    with pytest.raises(JobFileError, match=r"not text\. It looks like a workbook"):
        read(b"PK\x03\x04\x14keywords\nred\n", suffix)


def test_a_header_that_is_not_utf8(read) -> None:
    with pytest.raises(JobFileError, match=r"Line 1 is not UTF-8.*--encoding cp1252"):
        read("keywords,größe\nred circle,1\n".encode("latin-1"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_an_empty_file(read, suffix: str) -> None:
    with pytest.raises(JobFileError, match="is empty"):
        read("", suffix)


@pytest.mark.parametrize("name", ["jobs.xls", "jobs", "jobs.parquet.gz"])
def test_a_file_of_another_kind(tmp_path: Path, profile: Profile, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(JobFileError, match=r"\.parquet"):
        read_jobs(tmp_path / name, profile, Overrides())


def test_parquet_of_a_spreadsheet(tmp_path: Path, profile: Profile) -> None:
    rows = [
        {"keywords": "a", "candidates": 2.0, "seed": float("nan")},
        {"keywords": "b", "candidates": 2.5},
        {"keywords": None},
    ]
    path = as_parquet(tmp_path / "jobs.parquet", rows)
    good, half, empty = read_jobs(path, profile, Overrides())
    assert isinstance(good, Job)
    assert good.candidates == 2
    assert isinstance(half, BadRow)
    assert half.reason == "2.5 is not a whole number"
    assert isinstance(empty, BadRow)


@pytest.mark.parametrize("value", [True, ["a"], {"a": 1}, b"a"])
def test_a_parquet_column_of_another_kind(tmp_path: Path, profile: Profile, value: Any) -> None:
    path = as_parquet(tmp_path / "jobs.parquet", [{"keywords": "a", "style": value}])
    with pytest.raises(JobFileError, match="Column 'style' is"):
        list(read_jobs(path, profile, Overrides()))


def test_parquet_text_that_is_not_utf8(tmp_path: Path, profile: Profile) -> None:
    cells = pa.array([b"ok", b"\xff", None]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"keywords": cells}), tmp_path / "jobs.parquet")
    good, bad, empty = read_jobs(tmp_path / "jobs.parquet", profile, Overrides())
    assert isinstance(good, Job)
    assert isinstance(bad, BadRow)
    assert "not valid UTF-8" in bad.reason
    assert isinstance(empty, BadRow)


def test_a_small_parquet_file_of_long_texts_takes_little_memory(
    tmp_path: Path, profile: Profile
) -> None:
    path = tmp_path / "jobs.parquet"
    places = pa.array([0] * 99 + [1], pa.int32())
    cells = pa.DictionaryArray.from_arrays(places, pa.array(["x" * 10_000_000, "red"]))
    pq.write_table(pa.table({"keywords": cells}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000
    usual, counting = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counting)
    try:
        *bad, good = read_jobs(path, profile, Overrides())
    finally:
        pa.set_memory_pool(usual)
    assert {row.reason for row in bad} == {"the field is longer than 2048 bytes"}
    assert good.keywords == "red"
    assert 10_000_000 < counting.max_memory() < 300_000_000


def test_parquet_texts_of_any_kind(tmp_path: Path, profile: Profile) -> None:
    table = pa.table(
        {
            "keywords": pa.array(["a", None, "a", "b"], pa.large_string()),
            "style": pa.array(["x", "y", None, "x"]).dictionary_encode(),
            "seed": pa.array([1, 2, 3, None]),
            "meta.a": ["p", "q", "r", "p"],
        }
    )
    pq.write_table(table, tmp_path / "jobs.parquet", row_group_size=3)
    first, empty, third, last = read_jobs(tmp_path / "jobs.parquet", profile, Overrides())
    assert (first.keywords, first.style, first.seed, first.meta) == ("a", "x", 1, {"a": "p"})
    assert isinstance(empty, BadRow)
    assert (third.keywords, third.style, third.seed) == ("a", "", 3)
    assert (last.keywords, last.style, last.row, last.meta) == ("b", "x", 4, {"a": "p"})


def test_a_damaged_parquet_file(tmp_path: Path, profile: Profile) -> None:
    path = as_parquet(tmp_path / "jobs.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(JobFileError, match="not a readable Parquet file"):
        list(read_jobs(path, profile, Overrides()))


def test_reading_is_a_stream(tmp_path: Path, profile: Profile) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("keywords\n" + "red circle\n" * 20_000)
    rows = read_jobs(path, profile, Overrides())
    assert next(rows).row == 2
    path.write_text("")
    assert sum(1 for _ in rows) < 15_000


def test_file_digest(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_bytes(b"keywords\n")
    assert file_digest(path) == hashlib.sha256(b"keywords\n").hexdigest()
    with pytest.raises(JobFileError):
        file_digest(tmp_path)
