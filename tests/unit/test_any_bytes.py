"""Whatever bytes stand in a row, the readers go on: the good rows around it are read."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.job import Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import Profile
from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import Text

hurried = settings(max_examples=25, suppress_health_check=list(HealthCheck))
SIGNS = st.sampled_from([b'"', b"\r", b"\n", b",", b";", b"\0", b"{", b"[", b"\xff", b"1", b"\\"])
RANDOM = st.binary(max_size=60) | st.lists(SIGNS, max_size=30).map(b"".join)
# a row that is longer than a row may be, of the job files' 64 KB and the knowledge base's 1 MB
TIMES = st.sampled_from([1, 1, 1, 1, 70_000, 300_000])
LONG = b"z" * 1_100_000
PROFILE = Profile.load("shapes")


def jobs(path: Path) -> list[bool]:
    """Of each row whether it is a job."""
    rows = read_jobs(path, PROFILE, Overrides(), lambda _: None)
    return [isinstance(row, Job) for row in rows]


def passages(path: Path) -> list[bool]:
    """Of each row whether it is a text."""
    return [isinstance(each, Text) for each in read_texts(path)]


@pytest.mark.parametrize(
    ("read", "name", "head", "good"),
    [
        (jobs, "jobs.csv", b"keywords,style\n", b"red circle,\n"),
        (jobs, "jobs.jsonl", b"", b'{"keywords": "red circle"}\n'),
        (passages, "facts.csv", b"text,title\n", b"A red circle.,\n"),
        (passages, "facts.jsonl", b"", b'{"text": "A red circle."}\n'),
    ],
)
@hurried
@given(row=RANDOM, times=TIMES)
@example(b'{"keywords":"x","seed":' + b"1" * 5_000 + b"}", 1)
@example(b'{"keywords":"x","seed":' + b"1" * 70_000 + b"}", 1)
@example(b'{"text":"x","tags":' + b"1" * 70_000 + b"}", 1)
@example(b"a\rb" + LONG + b",y", 1)
@example(b'"a\rb' + LONG, 1)
@example(b'{"keywords":' + b"[" * 60_000, 1)
@example(b'{"text":' + b"[" * 200_000 + b"]" * 200_000 + b"}", 1)
@example(b'{"text":"x","image":"' + b"a/" * 9_000 + b'a.png"}', 1)
@example(b'{"text":"x","image":"\\ud800.png"}', 1)
@example(b'{"text":"x","image":"\\u0000.png"}', 1)
@example(b'{"text":"x","\\ud800":"\\ud800","title":"\\ud800"}', 1)
def test_any_bytes_in_a_row(tmp_path_factory, read, name, head, good, row, times) -> None:
    path = tmp_path_factory.mktemp("any", numbered=True) / name
    path.write_bytes(head + good + row * times + b"\n" + good)
    found = read(path)
    path.unlink()
    assert found[0], "the row before"
    assert found[-1], "the row behind"
