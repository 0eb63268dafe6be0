"""The column `embeddings`: names of files in the profile's folder, which the texts hold."""

from pathlib import Path

import pytest
import torch

from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.models.named.textual_inversions import TextualInversionFolder
from pipeline.profile import A1111Profile, Profile
from tests.unit.models.test_textual_inversions import saved

VECTORS = {"emb_params": torch.ones(2, 4)}
SHAPES = Profile.load("shapes")


def read(
    folder: Path, embeddings: TextualInversionFolder | None, row: str, profile: Profile = SHAPES
) -> tuple[Job | BadRow, list[str]]:
    (folder / "jobs.csv").write_text(f"keywords,negative,embeddings\n{row}\n")
    notices = list[str]()
    weights = {"": {"embeddings": embeddings}} if embeddings else {}
    (job,) = read_jobs(
        folder / "jobs.csv", profile, Overrides(), lambda n: notices.append(n.reason), weights
    )
    return job, notices


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("an A in red,,a", 0),
        ('circle,"blue,a",a', 0),
        ("a-circle,,a", 0),
        ("cat,tar,a", 1),
    ],
)
def test_an_embedding_that_no_text_names_is_told(tmp_path: Path, row: str, told: int) -> None:
    folder = saved(tmp_path, VECTORS)
    job, notices = read(tmp_path, folder, row)
    assert isinstance(job, Job)
    assert [(each.name, each.digest) for each in job.embeddings] == [("a", folder.find("a").digest)]
    said = "an embedding has no effect where no text of the row names it (1 row)"
    assert notices == [said] * told


def test_another_file_of_the_name_is_another_job(tmp_path: Path) -> None:
    plain, _ = read(tmp_path, None, "a circle,,")
    before, _ = read(tmp_path, saved(tmp_path, VECTORS), "a circle,,a")
    after, _ = read(tmp_path, saved(tmp_path, {"a": torch.zeros(2, 4)}), "a circle,,a")
    assert len({plain.id, before.id, after.id}) == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("b", r"there is no embedding 'b' in .* \(there are: a\)"),
        ("../a", "may not be a path"),
        ("a|b|c|d|e", "no embedding 'b'"),
        ("a|A|aa|aA|Aa", "no embedding 'A'"),
    ],
)
def test_what_cannot_be_used_is_a_bad_row(tmp_path: Path, value: str, said: str) -> None:
    bad, _ = read(tmp_path, saved(tmp_path, VECTORS), f"a circle,,{value}")
    assert isinstance(bad, BadRow)
    assert bad.column == "embeddings"
    assert pytest.RaisesExc(ValueError, match=said).matches(ValueError(bad.reason))


def test_a_profile_without_a_folder_takes_none(tmp_path: Path) -> None:
    bad, _ = read(tmp_path, None, "a circle,,a")
    assert isinstance(bad, BadRow)
    assert "names no folder of them (renderer.embeddings)" in bad.reason


def test_the_names_for_a_server_are_its_own(tmp_path: Path) -> None:
    profile = SHAPES.model_copy(update={"renderer": A1111Profile()})
    job, _ = read(tmp_path, None, "a circle,,a", profile)
    assert isinstance(job, Job)
    assert [(each.name, each.digest) for each in job.embeddings] == [("a", "")]
