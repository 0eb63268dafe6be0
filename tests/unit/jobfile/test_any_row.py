"""Whatever stands in a file, each row is one job or one bad row."""

import csv
import io
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.job import BadRow, Job
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.reader import read_jobs
from pipeline.jobfile.rows import RawRow
from pipeline.jobfile.values import READERS
from pipeline.profile import Profile

# a busy machine is no finding
hurried = settings(max_examples=80)
PROFILE = Profile.load("shapes")
BUILDER = JobBuilder(PROFILE, Overrides())
COLUMNS = [*READERS, "meta.a", "meta.b"]
ANY_TEXT = st.text(st.characters(), max_size=40) | st.text("{}|$\\ metab.,0123", max_size=30)
ANY_VALUE = ANY_TEXT | st.integers() | st.floats(allow_nan=False)
ANY_ROW = st.dictionaries(st.sampled_from(COLUMNS), ANY_VALUE)
TEMPLATE = st.recursive(
    st.sampled_from(["red", "blue", " ", "${meta.a}", "\\{"]),
    lambda part: st.lists(part, max_size=3).map(lambda parts: "{" + "|".join(parts) + "}"),
    max_leaves=12,
)


def from_file(tmp_path: Path, name: str, content: bytes) -> list[Job | BadRow]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(read_jobs(path, PROFILE, Overrides()))


@hurried
@given(ANY_ROW, st.integers(1, 10**6))
def test_any_row_is_a_job_or_a_bad_row_with_a_reason(values, line) -> None:
    made = BUILDER.build(RawRow(line, values))
    assert made.row == line
    again = type(made).model_validate_json(made.model_dump_json())
    assert again == made
    if isinstance(made, BadRow):
        assert made.reason


@hurried
@given(ANY_ROW, st.integers(1, 10**6), st.integers(1, 10**6))
def test_equal_rows_are_equal_jobs(values, here, there) -> None:
    shuffled = dict(reversed(values.items()))
    one, two = BUILDER.build(RawRow(here, values)), BUILDER.build(RawRow(there, shuffled))
    assert type(one) is type(two)
    if isinstance(one, Job):
        assert one == two.model_copy(update={"row": here})


@hurried
@given(TEMPLATE, st.text("ab|{}$", max_size=5))
def test_expansion_is_a_function_of_the_row(template, meta) -> None:
    values = {"keywords": f"x {template}", "meta.a": meta}
    made = [BUILDER.build(RawRow(line, dict(values))) for line in (2, 3)]
    keywords = {(type(row), row.keywords) for row in made}
    assert len(keywords) == 1


@hurried
@given(st.lists(st.lists(ANY_TEXT, min_size=2, max_size=2), max_size=6))
def test_any_csv(tmp_path_factory, rows) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["keywords", "style"], *rows])
    content = buffer.getvalue().encode("utf-8", errors="surrogatepass")
    made = from_file(tmp_path_factory.mktemp("any"), "jobs.csv", content)
    assert len(made) == sum(any(map(str.strip, row)) for row in rows)


@hurried
@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), ANY_VALUE | st.none()), max_size=6))
def test_any_jsonl(tmp_path_factory, rows) -> None:
    # the first row stands for a header
    content = "\n".join(map(json.dumps, [{"keywords": "a"}, *rows])).encode()
    made = from_file(tmp_path_factory.mktemp("any"), "jobs.jsonl", content)
    assert [row.row for row in made] == list(range(1, len(rows) + 2))


@hurried
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory, content) -> None:
    folder = tmp_path_factory.mktemp("any")
    made = from_file(folder, "jobs.csv", b"keywords,style\n" + content)
    lines = [row.row for row in made]
    assert lines == sorted(set(lines))
    made = from_file(folder, "jobs.jsonl", b'{"keywords": "a"}\n' + content)
    full = [line for line in content.split(b"\n") if line.strip(b" \t\r\n")]
    assert len(made) == len(full) + 1
