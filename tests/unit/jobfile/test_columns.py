"""An unknown column is left out with one warning, in every format alike."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.job import Job
from pipeline.jobfile.columns import MOST_NAMED
from pipeline.jobfile.reader import Notice, Overrides, read_jobs
from pipeline.profile import Profile

TABLE = {"keywords": ["a", "b"], "stlye": ["x", "y"], "steps": [3, 4], "colour": ["z", ""]}
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
def test_an_unknown_column_is_left_out_with_one_warning(
    tmp_path: Path, profile: Profile, told: list[Notice], suffix: str
) -> None:
    rows = list(read_jobs(written(tmp_path, suffix), profile, Overrides(), told.append))
    assert all(isinstance(row, Job) and not row.meta for row in rows)
    assert [(row.keywords, row.steps, row.style) for row in rows] == [("a", 3, ""), ("b", 4, "")]
    assert [(notice.line, notice.column) for notice in told] == [(1, "stlye"), (1, "colour")]
    assert "did you mean 'style'?" in told[0].reason
    assert "there are keywords" in told[1].reason


def test_what_is_left_out_changes_no_id(read) -> None:
    (with_,) = read("keywords,colour\na,red\n")
    (without,) = read("keywords\na\n")
    assert with_ == without


def test_by_default_the_warning_goes_to_stderr(
    tmp_path: Path, profile: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    list(read_jobs(written(tmp_path, ".csv"), profile, Overrides()))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("did you mean 'style'?") == 1


def test_a_new_unknown_column_in_every_row(read, told: list[Notice]) -> None:
    lines = [json.dumps({"keywords": "a", f"stray{n}": n, "meta.n": n}) for n in range(200)]
    rows = read("\n".join(lines), ".jsonl")
    assert [row.meta for row in rows] == [{"n": str(n)} for n in range(200)]
    assert [notice.line for notice in told] == list(range(1, MOST_NAMED + 2))
    assert "the others are not told" in told[-1].reason


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("keywords,", ""),
        ("keywords,,,", ""),
        ("keywords,Styles", "Styles"),
        ("keywords,x,x", "x"),
        ("keywords,keyword", "keyword"),
        ("keywords,a\u202eb", "a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_a_warning_names_the_column(read, told: list[Notice], header: str, column: str) -> None:
    (job,) = read(f"{header}\nred,1\n")
    assert isinstance(job, Job)
    assert [notice.column for notice in told] == [column]
    assert told[0].reason.isprintable()


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.bool_(), pa.list_(pa.int64())])
def test_an_unknown_column_of_any_kind(
    tmp_path: Path, profile: Profile, told: list[Notice], kind: pa.DataType
) -> None:
    cells = pa.nulls(1, kind)
    pq.write_table(pa.table({"keywords": ["a"], "when": cells}), tmp_path / "jobs.parquet")
    (job,) = read_jobs(tmp_path / "jobs.parquet", profile, Overrides(), told.append)
    assert isinstance(job, Job)
    assert [notice.column for notice in told] == ["when"]
