"""An unknown column is kept with one notice, in every format alike, unless it is a misspelling."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobFileError
from pipeline.job import Job
from pipeline.jobfile.columns import MOST_NAMED
from pipeline.jobfile.reader import Notice, Overrides, read_jobs
from pipeline.profile import Profile

TABLE = {"keywords": ["a", "b"], "SKU": ["007", ""], "steps": [3, 4], "Unit price": [1.5, 2]}
ROWS = [dict(zip(TABLE, values, strict=True)) for values in zip(*TABLE.values(), strict=True)]


def written(folder: Path, suffix: str) -> Path:
    """The table as a job file."""
    path = folder / f"jobs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(TABLE), path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        lines = [",".join(map(str, row.values())) for row in ROWS]
        path.write_text("\n".join([",".join(TABLE), *lines]))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_unknown_column_is_kept_and_told_once(
    tmp_path: Path, profile: Profile, told: list[Notice], suffix: str
) -> None:
    first, second = read_jobs(written(tmp_path, suffix), profile, Overrides(), told.append)
    assert first.meta == {"sku": "007", "unit_price": "1.5"}
    assert set(second.meta) == {"unit_price"}
    assert (first.steps, second.steps) == (3, 4)
    (notice,) = told
    assert (notice.line, notice.column) == (1, "SKU")
    assert "'SKU' as meta.sku, 'Unit price' as meta.unit_price" in notice.reason


def test_by_default_the_notice_goes_to_stderr(
    tmp_path: Path, profile: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    list(read_jobs(written(tmp_path, ".csv"), profile, Overrides()))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("'SKU' as meta.sku") == 1


def test_a_new_unknown_column_in_every_row(read, told: list[Notice]) -> None:
    lines = [json.dumps({"keywords": "a", f"stray{n}": n, "meta.n": n}) for n in range(200)]
    rows = read("\n".join(lines), ".jsonl")
    assert [row.meta for row in rows] == [{"n": str(n), f"stray{n}": str(n)} for n in range(200)]
    assert [notice.line for notice in told] == list(range(1, MOST_NAMED + 2))
    assert "are not told" in told[-1].reason


@pytest.mark.parametrize(
    ("header", "column", "meta"),
    [
        ("keywords,", "", "column_2"),
        ("keywords,,,", "", "column_2"),
        ("keywords,Größe", "Größe", "größe"),
        ("keywords,Price (€)", "Price (€)", "price"),
        ("keywords,€", "€", "column_2"),
        ("keywords,Height (cm)", "Height (cm)", "height_cm"),
        ("keywords,weight", "weight", "weight"),
        ("keywords,product.name", "product.name", "product.name"),
        (f"keywords,{'x' * 300}", "x" * 79 + "…", "x" * 60),
        ("keywords,a\u202eb", "a\N{REPLACEMENT CHARACTER}b", "a_b"),
    ],
)
def test_a_columns_own_name(read, told: list[Notice], header: str, column: str, meta: str) -> None:
    (job,) = read(f"{header}\nred,1\n")
    assert isinstance(job, Job)
    assert job.meta == {meta: "1"}
    assert [notice.column for notice in told] == [column]
    assert told[0].reason.isprintable()


def test_columns_of_one_name_are_told_apart(read) -> None:
    (job,) = read("keywords,x,X,meta.x_2,Price ($),Price (€)\nred,1,2,3,4,5\n")
    assert job.meta == {"x": "1", "x_3": "2", "x_2": "3", "price": "4", "price_2": "5"}


def test_columns_of_one_name_are_all_told(read, told: list[Notice]) -> None:
    (job,) = read("keywords,Size,Size,Size\nred,1,2,3\n")
    assert job.meta == {"size": "1", "size_2": "2", "size_3": "3"}
    (notice,) = told
    assert "'Size' as meta.size, 'Size' as meta.size_2, 'Size' as meta.size_3" in notice.reason


def test_a_name_means_one_column_in_every_object(read) -> None:
    rows = [{"A b": 1, "a_b": 2}, {"a_b": 2}, {"a b": 3}, {"A b": 1}, {"a_b": 4, "meta.a_b_2": 5}]
    jobs = read("\n".join(json.dumps({"keywords": "red"} | row) for row in rows), ".jsonl")
    assert [job.meta for job in jobs] == [
        {"a_b": "1", "a_b_2": "2"},
        {"a_b_2": "2"},
        {"a_b_3": "3"},
        {"a_b": "1"},
        {"a_b_2": "5", "a_b_4": "4"},
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("keyword", "keywords"),
        ("keywrods", "keywords"),
        ("stlye", "style"),
        ("Styles", "style"),
        ("widht", "width"),
        ("Negativ Prompt", "negative"),
        ("seeds", "seed"),
        ("licence", "licenses"),
    ],
)
@pytest.mark.parametrize("before", ["keywords,", ""])
def test_a_misspelling_is_never_kept_in_silence(read, before: str, name: str, meant: str) -> None:
    with pytest.raises(JobFileError, match=f"did you mean '{meant}'.*--map '{name}=meta.NAME'"):
        read(f"{before}{name}\nred,1\n")


@pytest.mark.parametrize("name", ["Key Words", "negativePrompt", "cfgScale", "num-inference STEPS"])
def test_words_may_be_joined_in_any_way(read, name: str) -> None:
    (job,) = read(f"{name}\n5\n" if name == "Key Words" else f"keywords,{name}\n5,5\n")
    assert isinstance(job, Job)
    assert job.meta == {}


def test_values_of_any_json_are_kept(read_one) -> None:
    job = read_one({"keywords": "a", "size": {"w": 2}, "tagged": ["ä"], "sold": True, "no": None})
    assert job.meta == {"size": '{"w": 2}', "tagged": '["ä"]', "sold": "true"}


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        (pa.array([date(2026, 11, 28)]), "2026-11-28"),
        (pa.array([Decimal("2.50")]), "2.50"),
        (pa.array([True]), "true"),
    ],
)
def test_an_unknown_parquet_column(tmp_path: Path, profile, cells: pa.Array, text: str) -> None:
    pq.write_table(pa.table({"keywords": ["a"], "When": cells}), tmp_path / "jobs.parquet")
    (job,) = read_jobs(tmp_path / "jobs.parquet", profile, Overrides(), lambda _: None)
    assert job.meta == {"when": text}


@pytest.mark.parametrize("kind", [pa.binary(), pa.list_(pa.int64())])
def test_a_parquet_column_that_no_text_can_hold(
    tmp_path: Path, profile: Profile, told: list[Notice], kind: pa.DataType
) -> None:
    cells = pa.nulls(1, kind)
    pq.write_table(pa.table({"keywords": ["a"], "when": cells}), tmp_path / "jobs.parquet")
    (job,) = read_jobs(tmp_path / "jobs.parquet", profile, Overrides(), told.append)
    assert isinstance(job, Job)
    assert "is left out" in told[-1].reason
