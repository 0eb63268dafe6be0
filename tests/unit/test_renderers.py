"""Renderers that rows choose by the column `model`."""

import json
import re
from pathlib import Path

import pytest

from flows.runs.check import check_jobs
from flows.runs.open import asked_for
from flows.runs.reproduce import reproduce_record
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.jobs import open_weights, weights_state
from pipeline.assemble.models import check_models
from pipeline.errors import ConfigError, ModelError, RunError
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.models.files import references
from pipeline.profile import Profile
from pipeline.run import run_job
from pipeline.settings import SHIPPED_MODELS, Settings, load_settings

PAGE = Path("docs/renderers.md").read_text(encoding="utf-8")
(BOTH,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
(JOBS,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With the profile of the documentation's page."""
    path = tmp_path / "both.toml"
    path.write_text(BOTH, encoding="utf-8")
    return load_settings(
        profile=str(path), store=str(tmp_path / "out"), home=tmp_path / "home", device="cpu"
    )


def profile(folder: Path, more: str = "", was: str = "", becomes: str = "") -> Profile:
    path = folder / "mine.toml"
    path.write_text(BOTH.replace(was, becomes) + more, encoding="utf-8")
    return Profile.load(str(path))


def read(folder: Path, profile: Profile, *rows: str, **said: object) -> list[Job | BadRow]:
    path = folder / "rows.csv"
    path.write_text("\n".join(["keywords,model,steps", *rows]), encoding="utf-8")
    weights = open_weights(load_settings(home=folder), profile)
    return list(read_jobs(path, profile, Overrides(**said), lambda _: None, weights))


def test_the_pages_rows_are_drawn_by_the_models_that_they_name(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(JOBS, encoding="utf-8")
    assembly = Assembly(settings)
    run_folder = assembly.run_folder("both")
    spec = asked_for(path, Overrides(candidates=1), settings, run_folder)
    run_folder.write_spec(spec)
    ports = assembly.ports(spec)
    rows = read_jobs(path, settings.chosen_profile, Overrides(candidates=1))
    outcomes = [run_job(job, ports) for job in rows if isinstance(job, Job)]
    assert [outcome.job and outcome.job.model for outcome in outcomes] == ["", "draft", "draft"]
    own, draft, _ = outcomes
    assert own.seed == draft.seed
    assert own.image
    assert draft.image
    assert own.image.sha256 != draft.image.sha256
    assert "unet" not in own.models
    assert draft.models["unet"] == spec.models["unet:draft"]
    assert draft.models["renderer"] == spec.models["renderer:draft"] == own.models["renderer"]
    assert not [role for role in draft.models if ":" in role]
    for outcome in outcomes:
        assert reproduce_record(f"both/{outcome.job_id}", settings, None)["equal"]
    renderers = spec.profile["renderers"]
    renamed = spec.profile | {"renderers": {"early": renderers["draft"]}}
    run_folder.write_spec(spec.model_copy(update={"profile": renamed}))
    with pytest.raises(RunError, match="rendered by 'draft', a name that its run's profile no"):
        reproduce_record(f"both/{draft.job_id}", settings, None)


def test_a_row_before_the_run_before_the_renderer_before_the_profile(tmp_path: Path) -> None:
    jobs = read(tmp_path, profile(tmp_path), "ring,,", "ring,draft,", "ring,draft,3")
    assert [(job.model, job.steps, job.guidance) for job in jobs if isinstance(job, Job)] == [
        ("", 20, 2.5), ("draft", 12, 2.0), ("draft", 3, 2.0)
    ]  # fmt: skip
    (job,) = read(tmp_path, profile(tmp_path), "ring,,", model="draft")
    assert (job.model, job.steps) == ("draft", 12)
    chosen = profile(tmp_path, '[defaults]\nmodel = "draft"\n')
    assert [job.model for job in read(tmp_path, chosen, "ring,,")] == ["draft"]
    patient = profile(tmp_path, "candidates = 9\n")
    given = (
        read(tmp_path, patient, "ring,draft,", "ring,,"),
        read(tmp_path, patient, "ring,draft,", candidates=2),
    )
    assert [[job.candidates for job in jobs] for jobs in given] == [[9, 4], [2]]


def test_an_unknown_model_is_a_bad_row_that_lists_the_names(tmp_path: Path) -> None:
    bad, good = read(tmp_path, profile(tmp_path), "ring,darft,", "ring,draft,")
    assert isinstance(good, Job)
    assert isinstance(bad, BadRow)
    assert (bad.column, bad.reason) == (
        "model", "the profile has no renderer 'darft' (there are: draft)"
    )  # fmt: skip
    (none,) = read(tmp_path, Profile.load("shapes"), "ring,draft,")
    assert isinstance(none, BadRow)
    assert "(there are: none)" in none.reason
    with pytest.raises(ConfigError, match="no renderer 'darft'"):
        read(tmp_path, profile(tmp_path), "ring,,", model="darft")


def test_an_id_holds_its_own_renderer_alone_and_not_its_name(tmp_path: Path) -> None:
    def ids(profile: Profile, name: str = "draft") -> list[str]:
        return [job.id for job in read(tmp_path, profile, "ring,,5", f"ring,{name},5")]

    plain, draft = ids(profile(tmp_path))
    assert plain != draft
    assert plain == read(tmp_path, Profile.load("shapes"), "ring,,5")[0].id
    more = '[renderers.other]\nkind = "a1111"\n'
    assert ids(profile(tmp_path, more)) == [plain, draft]
    renamed = profile(tmp_path, "", "renderers.draft", "renderers.early")
    assert ids(renamed, "early") == [plain, draft]
    slower = profile(tmp_path, "", "batch = 32", "batch = 1")
    assert ids(slower) == [plain, draft]
    other, changed = ids(profile(tmp_path, "", 'unet = "draft-unet"', 'scheduler = "x"'))
    assert other == plain
    assert changed != draft


def test_each_renderer_has_its_own_loras(tmp_path: Path) -> None:
    with_folder = '[renderers.styled]\nkind = "diffusers"\nmodel = "diffusion"\nloras = "loras"\n'
    given = profile(tmp_path, with_folder)
    path = tmp_path / "rows.csv"
    path.write_text("keywords,model,loras\na,,outlined\na,draft,outlined\na,styled,outlined\n")
    weights = open_weights(load_settings(home=tmp_path), given)
    assert [name for name, by_column in weights.items() if by_column] == ["", "styled"]
    folder = weights[""]["loras"]
    assert weights["styled"]["loras"] is folder
    assert weights_state(weights) == folder.state()
    own, draft, styled = read_jobs(path, given, Overrides(), lambda _: None, weights)
    assert isinstance(own, Job)
    assert isinstance(styled, Job)
    assert isinstance(draft, BadRow)
    assert "(renderers.draft.loras)" in draft.reason


def test_every_model_is_checked_under_its_renderers_name(tmp_path: Path) -> None:
    missing = profile(tmp_path, "", '"draft-unet"', '"nowhere"')
    settings = load_settings(home=tmp_path)
    with pytest.raises(ModelError, match="unet:draft: there is no folder or file 'nowhere'"):
        check_models(settings, missing)
    bad = profile(tmp_path, "", 'model = "diffusion"', 'model = "writer"')
    with pytest.raises(ModelError, match=r"renderer:draft: .* has no model_index\.json"):
        check_models(settings, bad)
    found = check_models(settings, profile(tmp_path))
    assert found["unet:draft"] == SHIPPED_MODELS / "draft-unet"


def test_an_adapter_may_have_the_name_of_a_renderer(tmp_path: Path) -> None:
    adapters = '[renderer.image_adapter.draft]\nmodel = "image-adapter"\n'
    own = 'batch = 32\nimage_adapter = "other"'
    named = references(profile(tmp_path, adapters, "batch = 32", own))
    assert named["image_adapter::draft"] == "image-adapter"
    assert named["image_adapter:draft"] == "other"


REFUSED = {
    "batsch = 3": "renderers.draft.batsch: Extra inputs are not permitted",
    "timeout = 3": "renderers.draft.timeout: the kind 'diffusers' has no such key; 'a1111' has",
    "batch = 0": "renderers.draft.batch: Input should be greater than or equal to 1",
    "defaults.model = 'x'": "renderers.draft.defaults.model: Extra inputs are not permitted",
    "defaults.width = 65": "renderers.draft.defaults.width: Input should be a multiple of 8",
    "[defaults]\nmodel = 'x'": "defaults.model: the profile has no renderer 'x' (there are: draft)",
    "[renderers.'a:b']\nkind = 'a1111'": "renderers.a:b.[key]: Input is no plain name",
    "[renderers.'']\nkind = 'a1111'": "at least 1 character",
    "[renderers.other]\nmodel = 'x'": "renderers.other.kind: Field required",
    "[renderers.other]\nkind = 'x'": "renderers.other.kind: Input should be 'diffusers' or 'a1111'",
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.items())
def test_a_section_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, text: str, problem: str
) -> None:
    section = BOTH.split("[renderers.draft.defaults]")[0].replace("batch = 32\n", "")
    path = tmp_path / "mine.toml"
    path.write_text(section + text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(problem)):
        Profile.load(str(path))


def test_a_section_of_another_kind_keeps_what_it_knows(tmp_path: Path) -> None:
    (tmp_path / "both.toml").write_text(BOTH, encoding="utf-8")
    path = tmp_path / "over.toml"
    path.write_text(f'extends = "{tmp_path}/both.toml"\n[renderers.draft]\nkind = "a1111"\n')
    draft = Profile.load(str(path)).renderers["draft"]
    assert (draft.kind, draft.batch, draft.model) == ("a1111", 32, "diffusion")
    assert draft.defaults.steps == 12


def test_a_profile_with_renderers_is_read_again_from_a_runs_spec(tmp_path: Path) -> None:
    given = profile(tmp_path)
    assert Profile.model_validate(json.loads(given.model_dump_json())) == given


def test_a_check_tells_the_jobs_and_the_changes_of_models(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(JOBS, encoding="utf-8")
    report = check_jobs(path, Overrides(), settings)
    assert report["by_model"] == [{"model": "", "jobs": 1}, {"model": "draft", "jobs": 2}]
    assert report["model_changes_per_worker"] == 1
    plain = load_settings(store=str(tmp_path / "out"), home=tmp_path)
    path.write_text("keywords\nring\n", encoding="utf-8")
    assert "by_model" not in check_jobs(path, Overrides(), plain)


def test_of_several_servers_each_names_its_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that one row asks for stays loaded for the next one."""
    path, two = tmp_path / "servers.toml", '[renderers.xl]\nkind = "a1111"\nmodel = "xl"\n'
    begin = 'extends = "shapes"\n[renderer]\nkind = "a1111"\n'
    path.write_text(f'{begin}model = "sd"\n{two}')
    assert Profile.load(str(path)).of("xl").renderer.kind == "a1111"
    path.write_text(f'{begin}model = ""\n{two}')
    with pytest.raises(ConfigError, match="each has to name its model"):
        Profile.load(str(path))
