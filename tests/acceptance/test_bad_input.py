"""Bad input through the command line: a row's fault is an outcome, a file's fault an exit code."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.harness.commandline import answer, pressrun_here
from tests.harness.connected import stand_ins

pytestmark = pytest.mark.slow

HEADER = b"keywords,style,steps,collection,Colour,SKU\n"
ROWS: list[tuple[bytes, str, str]] = [
    (b"red\x00circle,,,,,", "keywords", "U+0000"),
    (b"red circle," + b"x" * 10_000_000 + b",,,,", "style", "longer than 64 KB"),
    ("red circle,a\u202eb,,,,".encode(), "style", "U+202E"),
    (b"red circle,,many,,,", "steps", "not a whole number"),
    (b"caf\xe9,,,,,", "keywords", "not valid UTF-8"),
    (b"red circle,,,../../etc/passwd,,", "collection", "no path"),
    (b"red circle,,,https://example.com/x,,", "collection", "no address"),
    (b",bold,,,,", "keywords", "keywords is empty"),
    (b'"red circle,,,,,', "", "never closed"),
]
GOOD = b"red circle on white,,2,,teal,bold\n"
FILES: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "is empty"),
    ("old.csv", "größe,keywords\n1,red\n".encode("latin-1"), "Line 1 is not UTF-8"),
    ("typo.csv", b"id,keyword\n1,red\n", "did you mean 'keywords'?"),
    ("misspelt.csv", b"keywords,stlye\nred,bold\n", "did you mean 'style'?"),
    ("broken.parquet", b"PAR1" + b"x" * 100, "not a readable Parquet file"),
]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job file with every bad row there is, and a good one twice at its end."""
    path = tmp_path_factory.mktemp("bad") / "jobs.csv"
    path.write_bytes(HEADER + b"".join(row + b"\n" for row, *_ in ROWS) + GOOD + GOOD)
    return path


@pytest.mark.parametrize(("name", "content", "complaint"), FILES, ids=[name for name, *_ in FILES])
def test_a_files_fault_is_one_line_and_an_exit_code(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = pressrun_here("check", name, "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert complaint in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_check_names_line_column_and_reason(jobs: Path) -> None:
    report = answer(pressrun_here("check", jobs.name, "--json", cwd=jobs.parent))
    assert (report["rows"], report["invalid"]) == (len(ROWS) + 2, len(ROWS))
    assert (report["jobs"], report["duplicates"]) == (1, 1)
    for line, (problem, (_, column, reason)) in enumerate(
        zip(report["problems"], ROWS, strict=True), start=2
    ):
        assert (problem["line"], problem["column"]) == (line, column)
        assert reason in problem["reason"]
    (kept,) = report["warnings"]
    assert "'Colour' as meta.colour, 'SKU' as meta.sku" in kept["reason"]


def test_people_see_the_same(jobs: Path) -> None:
    done = pressrun_here("check", jobs.name, cwd=jobs.parent, settings={"COLUMNS": "200"})
    assert done.returncode == 0
    for words in ("'SKU' as meta.sku", "U+202E", "../../etc/passwd"):
        assert words in done.stdout


def test_a_run_gives_each_bad_row_its_outcome_and_goes_on(jobs: Path, prefect_server: str) -> None:
    words = ("run", jobs.name, "--candidates", "1", "--json")
    with stand_ins(jobs.parent, {"PREFECT_API_URL": prefect_server}) as settings:
        done = pressrun_here(*words, cwd=jobs.parent, settings=settings)
    summary = answer(done)
    assert (summary["rows"], summary["invalid"], summary["failed"]) == (len(ROWS) + 2, len(ROWS), 0)
    assert done.stderr.count("'SKU' as meta.sku") == 1
    lines = pq.read_table(Path(jobs.parent, summary["folder"], "manifest.parquet")).to_pylist()
    for number, (line, (_, column, reason)) in enumerate(zip(lines, ROWS, strict=False), start=2):
        assert (line["row"], line["outcome"]) == (number, "invalid")
        assert column in line["reason"]
        assert reason in line["reason"]
    assert json.dumps(lines, default=str).isprintable()
