"""Settings that change nothing are told, once for all their rows."""

from pathlib import Path

import pytest

from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.jobfile.remarks import Notice
from pipeline.profile import Profile

NEGATIVE = "the negative prompt has no effect at guidance 1 or less"


def test_negative_words_without_guidance_are_told_with_their_rows(read, told) -> None:
    read("keywords,negative,guidance\na,,1\nb,blur,2.5\nc,blur,1\nd,noise,0\ne,blur,x\n")
    assert told == [Notice(4, "negative", f"{NEGATIVE} (2 rows)")]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"wave": 2}, ["wave"]),
        ({"wave": 2, "contest": "first_above"}, []),
        ({"stop_below": 0.1}, ["stop_below"]),
        ({"contest": "race_above"}, ["contest"]),
        ({"contest": "race_above", "wave": 2}, []),
        ({"passages": 3, "tags": "a", "licenses": "CC0"}, ["passages", "tags", "licenses"]),
        ({"passages": 3, "tags": "a", "collection": "brands"}, []),
        ({"passages": 0, "references": 0}, []),
        ({"reference_scale": 0.5, "collection": "brands"}, ["reference_scale"]),
        ({"reference_scale": 0.5, "references": 1, "collection": "brands"}, []),
        ({"style": "bold"}, []),
        ({"keywords": "🔴 ⬛"}, []),
    ],
)
def test_a_column_without_effect_is_warned_about(read_one, told, row, columns) -> None:
    assert isinstance(read_one({"keywords": "a"} | row), Job)
    assert [notice.column for notice in told] == columns
    assert all(notice.reason.endswith("(1 row)") for notice in told)


def test_a_run_without_retrieval_warns_of_no_retrieval_column(read_one, told) -> None:
    read_one({"keywords": "a", "passages": 3, "collection": "brands"}, retrieval=False)
    assert told == []


@pytest.mark.parametrize("keywords", ["!?", "…", "- - -", "{!|?}"])
def test_keywords_without_a_word_are_refused(read_one, keywords) -> None:
    bad = read_one({"keywords": keywords})
    assert isinstance(bad, BadRow)
    assert (bad.column, bad.reason) == ("keywords", "keywords hold no word, no number and no emoji")


@pytest.mark.parametrize(
    ("row", "columns"), [("a,", ["rounds"]), ("a,brands", []), ("!?,", [])], ids=str
)
def test_rounds_of_the_profile_that_can_change_nothing_are_told(
    tmp_path: Path, profile: Profile, row: str, columns: list[str]
) -> None:
    defaults = profile.defaults.model_copy(update={"rounds": 2, "references": 1})
    path, told = tmp_path / "jobs.csv", list[Notice]()
    path.write_text(f"keywords,collection\n{row}\n", encoding="utf-8")
    many = profile.model_copy(update={"defaults": defaults})
    list(read_jobs(path, many, Overrides(), told.append))
    assert [notice.column for notice in told] == columns
