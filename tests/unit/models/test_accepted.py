"""Settings that a pipeline does not take are told before the run, as its call would tell them."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.assemble.jobs import open_jobs
from pipeline.errors import JobError
from pipeline.job import BadRow, Job, RenderRequest
from pipeline.jobfile.reader import Overrides
from pipeline.models.accepted import accepted_by
from pipeline.rendering.calls import call_arguments
from pipeline.settings import load_settings
from tests.harness import original_layout, small_models

FAMILIES = [*small_models._MADE]


@pytest.fixture(params=FAMILIES)
def pipe(request: pytest.FixtureRequest) -> Any:
    return small_models.made(request.param)


def fails(pipe: Any, **changes: object) -> bool:
    settings = {"prompt": "a", "negative": "", "width": 32, "height": 32, "steps": 2, "guidance": 1}
    request = RenderRequest.model_validate(settings | {"seeds": (7,)} | changes)
    try:
        call_arguments(pipe, [request])
    except JobError:
        return True
    return False


def test_it_is_what_the_call_of_each_family_takes(pipe: Any, tmp_path: Path) -> None:
    pipe.save_config(tmp_path)
    found = accepted_by(tmp_path)
    assert found.name == type(pipe).__name__
    assert found.plain != fails(pipe)
    if found.plain:
        assert found.guidance != fails(pipe, guidance=4)
        if found.guidance:
            assert found.negative != fails(pipe, guidance=4, negative="b")
        assert not fails(pipe, guidance=1, negative="b")


def test_a_class_that_is_unknown_or_in_one_file_refuses_nothing(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "Flux9Pipeline"}')
    assert accepted_by(tmp_path).guidance
    file = tmp_path / "dream.safetensors"
    original_layout.save(original_layout.stable_diffusion(), file)
    found = accepted_by(file)
    assert (found.name, found.negative) == ("StableDiffusionPipeline", True)


def rows(tmp_path: Path, family: str, *, whole: bool = True) -> list[Job | BadRow]:
    small_models.made(family).save_config(tmp_path / "model")
    if not whole:
        (tmp_path / "model" / "model_index.json").write_text("{")
    profile = tmp_path / "mine.toml"
    profile.write_text(
        'extends = "shapes"\n[renderer]\nmodel = "model"\nloras = ""\nembeddings = ""\n'
    )
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("keywords,guidance,negative\na,1,\na,4,\na,1,b\na,4,b\n")
    settings = load_settings(models=tmp_path, profile=str(profile))
    return list(open_jobs(jobs, Overrides(), settings, lambda _: None))


@pytest.mark.parametrize(
    ("family", "columns"),
    [
        ("sd", ["", "", "", ""]),
        ("flux2", ["", "", "", "negative"]),
        ("flux2-klein", ["", "", "", "negative"]),
        ("flux2-klein-distilled", ["", "guidance", "", "guidance"]),
        ("sd-inpaint", ["mask"] * 4),
    ],
)
def test_such_rows_are_invalid(family: str, columns: list[str], tmp_path: Path) -> None:
    found = rows(tmp_path, family)
    assert [row.column if isinstance(row, BadRow) else "" for row in found] == columns


def test_a_model_that_cannot_be_read_is_none_of_the_rows(tmp_path: Path) -> None:
    assert all(isinstance(row, Job) for row in rows(tmp_path, "flux2", whole=False))
