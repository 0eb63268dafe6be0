"""Settings that change nothing are told, once for all their rows."""

from pathlib import Path

import pytest

from pipeline.job import BadRow, Check, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.jobfile.remarks import Notice
from pipeline.profile import LocalWriterProfile, Profile, TemplateWriterProfile, WriterProfile

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
        ({"edit_strength": 0.5}, ["edit_strength"]),
        ({"edit_strength": 0}, []),
        ({"draft_steps": 4, "survivors": 1}, ["draft_steps", "survivors"]),
        ({"contest": "draft", "draft_steps": 4, "survivors": 1}, []),
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


CHECKED = TemplateWriterProfile(questions=(Check(question="Red?", kind="attribute"),))


@pytest.mark.parametrize(
    ("writer", "columns", "reason"),
    [
        (CHECKED, "a,2,0.5,,", ""),
        (CHECKED, "a,2,,,", ""),
        (CHECKED, "a,2,0,,", "rounds: a further round rewrites"),
        (CHECKED, "a,1,0.5,,", "edit_strength has no effect without rounds of 2 or 3"),
        (CHECKED, "a,2,0.01,,", "edit_strength: 0.01 of 20 steps is no step"),
        (LocalWriterProfile(model="writer"), "a,2,0.5,brands,1", "the writer makes no checks"),
    ],
)
def test_edits_need_rounds_checks_and_a_step(
    tmp_path: Path, profile: Profile, writer: WriterProfile, columns: str, reason: str
) -> None:
    path, told = tmp_path / "jobs.csv", list[Notice]()
    header = "keywords,rounds,edit_strength,collection,references"
    path.write_text(f"{header}\n{columns}\n", encoding="utf-8")
    rows = list(
        read_jobs(path, profile.model_copy(update={"writer": writer}), Overrides(), told.append)
    )
    said = [f"{row.column}: {row.reason}" for row in rows if isinstance(row, BadRow)]
    said += [notice.reason for notice in told]
    assert len(said) == bool(reason)
    assert reason in "".join(said)
