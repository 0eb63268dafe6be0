"""The column `loras`: names and weights of files in the profile's folder."""

from pathlib import Path

import pytest

from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.models.named.loras import LoraFolder
from pipeline.profile import Profile
from pipeline.settings import SHIPPED_MODELS
from tests.unit.models.test_loras import a_lora, saved

SHIPPED = LoraFolder(SHIPPED_MODELS / "loras")


def read(folder: Path, loras: LoraFolder | None, *values: str) -> list[Job | BadRow]:
    path = folder / "jobs.csv"
    folders = {"": {"loras": loras}} if loras else {}
    path.write_text("keywords,loras\n" + "".join(f"circle,{value}\n" for value in values))
    return list(read_jobs(path, Profile.load("shapes"), Overrides(), weights=folders))


def test_a_row_names_loras_with_their_weights_and_gets_their_digests(tmp_path: Path) -> None:
    plain, one, two = read(tmp_path, SHIPPED, "", "outlined", "outlined:0.5| outlined: -0.25")
    assert isinstance(plain, Job)
    assert isinstance(one, Job)
    assert isinstance(two, Job)
    digest = SHIPPED.find("outlined").digest
    assert plain.loras == ()
    assert [(lora.name, lora.weight, lora.digest) for lora in one.loras] == [
        ("outlined", 1.0, digest)
    ]
    assert [lora.weight for lora in two.loras] == [0.5, -0.25]
    assert len({plain.id, one.id, two.id}) == 3


def test_another_file_of_the_name_is_another_job(tmp_path: Path) -> None:
    (before,) = read(tmp_path, saved(tmp_path, a_lora()), "a")
    (again,) = read(tmp_path, LoraFolder(tmp_path), "a")
    (after,) = read(tmp_path, saved(tmp_path, a_lora(rank=3)), "a")
    assert before.id == again.id != after.id


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nothing", "there is no LoRA 'nothing'"),
        ("outlined:5", "less than or equal to 4"),
        ("outlined:much", "valid number"),
        ("outlined:nan", "finite number"),
        ("../loras/outlined", "may not be a path"),
        (".hidden", "may not be a path"),
        (":0.5", "may not be a path"),
        ("x> anything <y", "may not be a path"),
        ("outlined:1|outlined:2|outlined:3|outlined:0.5|outlined:0.1", "at most 4"),
    ],
)
def test_what_cannot_be_used_is_a_bad_row_with_its_column(
    tmp_path: Path, value: str, said: str
) -> None:
    bad, good = read(tmp_path, SHIPPED, value, "")
    assert isinstance(bad, BadRow)
    assert (bad.column, bad.row) == ("loras", 2)
    assert said in bad.reason
    assert isinstance(good, Job)


def test_a_profile_without_a_folder_takes_none(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, None, "outlined")
    assert isinstance(bad, BadRow)
    assert "names no folder of them (renderer.loras)" in bad.reason
