"""The dry run's counts are exact, its lists bounded."""

from pathlib import Path
from typing import Any

import pytest

from flows.runs.check import PROBLEMS_SHOWN, check_jobs
from pipeline.errors import JobFileError
from pipeline.jobfile.reader import Overrides
from pipeline.settings import load_settings


def checked(folder: Path, content: str) -> dict[str, Any]:
    """The report on a CSV file of this content."""
    path = folder / "jobs.csv"
    path.write_text(content, encoding="utf-8")
    settings = load_settings(store=str(folder / "store"))
    return check_jobs(path, Overrides(), settings)


def test_equal_rows_are_counted_once_wherever_they_stand(tmp_path: Path) -> None:
    rows = [f"circle {n % 700},{1 + n % 700 % 3},5\n" for n in range(1_500)]
    report = checked(tmp_path, "keywords,candidates,steps\n" + "".join(rows))
    assert (report["rows"], report["jobs"], report["duplicates"]) == (1_500, 700, 800)
    candidates = sum(1 + n % 3 for n in range(700))
    assert report["candidates_at_most"] == candidates
    assert report["denoising_steps_at_most"] == 5 * candidates


def test_the_steps_of_drafts_are_counted(tmp_path: Path) -> None:
    columns = "keywords,candidates,steps,contest,draft_steps,survivors\n"
    report = checked(tmp_path, columns + "circle,6,20,draft,4,2\nring,6,20,best_of,,\n")
    assert report["denoising_steps_at_most"] == 6 * 4 + 2 * 20 + 6 * 20


def test_bad_rows_are_counted_in_full_and_listed_up_to_a_bound(tmp_path: Path) -> None:
    report = checked(tmp_path, "keywords,steps\n" + "circle,many\n" * 50 + "circle,2\n")
    assert (report["rows"], report["jobs"], report["invalid"]) == (51, 1, 50)
    assert len(report["problems"]) == PROBLEMS_SHOWN
    first = {"line": 2, "column": "steps", "reason": "'many' is not a whole number"}
    assert report["problems"][0] == first


def test_unknown_columns_are_warnings(tmp_path: Path) -> None:
    report = checked(tmp_path, "keywords,SKU\ncircle,7\n")
    (warning,) = report["warnings"]
    assert (warning["line"], warning["column"]) == (1, "SKU")
    assert "'SKU' as meta.sku" in warning["reason"]
    assert report["jobs"] == 1


@pytest.mark.parametrize(
    ("content", "reason"), [("", "is empty"), ("\n\n", "keywords"), ("keywords\n\n", "no rows")]
)
def test_a_file_without_rows(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(JobFileError, match=reason):
        checked(tmp_path, content)


def test_collections_are_told_up_to_a_bound(tmp_path: Path) -> None:
    rows = "".join(f"circle,c{n}\n" for n in range(300))
    report = checked(tmp_path, f"keywords,collection\n{rows}")
    assert len(report["collections"]) == 100
    assert report["jobs"] == 300


def test_a_collection_that_may_not_be_asked_is_told_with_its_line(tmp_path: Path) -> None:
    profile = tmp_path / "own.toml"
    profile.write_text('extends = "shapes"\n[retrieval]\nallowed = ["ours"]\n')
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("keywords,collection\nring,ours\nring,theirs\n")
    settings = load_settings(store=str(tmp_path / "store"), profile=str(profile))
    report = check_jobs(jobs, Overrides(), settings)
    (problem,) = report["problems"]
    assert (problem["line"], problem["column"]) == (3, "collection")
    assert "'theirs' is none of the collections" in problem["reason"]
    assert (report["jobs"], report["collections"]) == (1, ["ours"])


def by_template(folder: Path, template: str, content: str) -> dict[str, Any]:
    """The report on a CSV file under a profile with the template writer."""
    (folder / "own.toml").write_text(
        f'extends = "shapes"\n[writer]\nkind = "template"\nprompt_template = "{template}"\n'
    )
    (folder / "jobs.csv").write_text(content, encoding="utf-8")
    settings = load_settings(store=str(folder / "store"), profile=str(folder / "own.toml"))
    return check_jobs(folder / "jobs.csv", Overrides(), settings)


def test_prompts_that_will_be_cut_are_told_with_their_rows(tmp_path: Path) -> None:
    rows = "".join(f'"{"word " * n}{"é" * n}"\n' for n in (10, 220, 199, 240))
    report = by_template(tmp_path, " ".join(["{keywords}"] * 4), f"keywords\n{rows}")
    reason = "the prompt will be cut (3 rows)"
    assert report["warnings"] == [{"line": 3, "column": "keywords", "reason": reason}]
    assert report["jobs"] == 4


def test_rows_that_a_template_fails_are_told(tmp_path: Path) -> None:
    report = by_template(tmp_path, "{meta.product}", "keywords,style\ncircle,bold\n")
    style, product = (warning["reason"] for warning in report["warnings"])
    assert "style has no effect" in style
    assert "the row will fail: the row has no 'meta.product'" in product


def test_what_retrieval_may_fill_is_no_failure(tmp_path: Path) -> None:
    assert by_template(tmp_path, "{passages}", "keywords\ncircle\n")["warnings"] == []
