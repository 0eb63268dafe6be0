"""The shipped profiles load, and every key is documented with its default."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.errors import ConfigError, RunError
from pipeline.profile import (
    JUDGES,
    PROFILES,
    CollectionProfile,
    ControlProfile,
    ImageAdapterProfile,
    MemoryProfile,
    Profile,
    TemplateWriterProfile,
    profile_of,
)
from tests.harness.jobs import make_spec

DOCUMENT = Path("docs/profiles.md").read_text(encoding="utf-8")
NAMES = sorted(path.stem for path in PROFILES.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_profile_loads_and_is_listed(name: str) -> None:
    assert Profile.load(name).name == name
    assert f"| `{name}` |" in DOCUMENT


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("shapes")])
def test_profiles_for_real_models_say_how_a_cosine_is_read(name: str) -> None:
    (judge,) = Profile.load(name).judge
    assert judge.slope is not None
    assert judge.offset is not None


def test_every_key_is_documented_with_its_kinds_and_default_and_no_other() -> None:
    lines = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.*) \|$", DOCUMENT, re.MULTILINE)
    expected = dict[str, list[str]]()
    for section in Profile.model_fields.keys() - {"renderers"}:  # each has the keys of `renderer`
        kinds = Profile.kinds(section)
        for key in {key: None for model in kinds.values() for key in model.model_fields}:
            knowing = [name for name, model in kinds.items() if key in model.model_fields]
            field = kinds[knowing[0]].model_fields[key]
            required = field.is_required() or (key == "kind" and len(kinds) > 1)
            named = "all" if len(knowing) == len(kinds) else ", ".join(f"`{k}`" for k in knowing)
            expected[f"{section}.{key}"] = [
                *([named] if len(kinds) > 1 else []),
                _shown(field.get_default(), required),
            ]
    rows = {key: row.split(" | ")[: len(expected[key])] for key, row in lines if key in expected}
    assert rows == expected
    assert {key for key, _ in lines} == set(expected)


GUARD = '[[guard]]\nkind = "terms"\nterms = ["a"]\n'
REFUSED = {
    '[writer]\ntext_template = "a"': "writer.text_template: the kind 'local' has no such key; "
    "'template' has",
    "[writer]\ntimeout = 9": "writer.timeout: the kind 'local' has no such key; 'endpoint' has",
    '[writer]\nkind = "template"\nmax_tokens = 9': "writer.max_tokens: the kind 'template' has no "
    "such key; 'local' and 'endpoint' have",
    '[renderer]\nkind = "a1111"\ncompile = true': "renderer.compile: the kind 'a1111' has no such "
    "key; 'diffusers' has",
    "[renderer]\ntimeout = 9": "renderer.timeout: the kind 'diffusers' has no such key; "
    "'a1111' has",
    "[renderer]\nbatsch = 9": "renderer.batsch: Extra inputs are not permitted",
    "[renderer.scheduler_settings]\nshift = inf": "renderer.scheduler_settings.shift: "
    "Input should be true or false, a finite number or a text",
    "[renderer.scheduler_settings]\nbetas = [1]": "renderer.scheduler_settings.betas: "
    "Input should be true or false, a finite number or a text",
    "[renderer]\nbatch = 0": "renderer.batch: Input should be greater than or equal to 1",
    '[renderer]\nkind = "comfy"': "renderer.kind: Input should be 'diffusers' or 'a1111'",
    "renderer = 3": "renderer: Input should be a valid dictionary or object to extract fields from",
    '[renderer]\nkind = ["a1111"]': "renderer.kind: Input should be 'diffusers' or 'a1111'",
    "[renderer]\nimage_adapter = 3": "renderer.image_adapter: Input should be a valid string",
    '[renderer.image_adapter.a]\nmodl = "x"': "renderer.image_adapter.a.model: Field required",
    '[renderer.image_adapter.a]\nmodel = "x"\nscale = 2': "renderer.image_adapter.a.scale: Input "
    "should be less than or equal to 1",
    '[renderer.image_adapter.a]\nmodel = "x"\nscale = { up = { block_0 = [0, "x"] } }': "renderer."
    "image_adapter.a.scale.up.block_0.1: Input should be a valid number, unable to parse string as "
    "a number",
    '[[judge]]\nkind = "dino"': "judge.0.kind: Input should be " + " or ".join(map(repr, JUDGES)),
    "[[judge]]\nfloor = 1": "judge.0.floor: the kind 'clip' has no such key; 'questions' and "
    "'questions_endpoint' have",
    "[writer]\nchecks = 3": "writer.checks has no effect: no judge asks questions",
    "[[judge]]\nweight = -1": "judge.0.weight: Input should be greater than or equal to 0",
    "[[judge]]\nweight = 0": "a judge's weight has to be above 0",
    '[[judge]]\n[[judge]]\nmodel = "m"': "two judges have one name (clip, clip): set judge.name",
    "[[judge]]\nfinalists = 2": "one judge with a weight above 0 has to see all images: leave out "
    "its finalists",
    '[[judge]]\nweight = 0\n[[judge]]\nname = "b"\nmodel = "m"\nfinalists = 2': "one judge with a "
    "weight above 0 has to see all images: leave out its finalists",
    "[judge]\nbatch = 1": "judge: judges are a list: write [[judge]] above each",
    "judge = []": "judge: Tuple should have at least 1 item after validation, not 0",
    "judge = [3]": "judge.0: Input should be a valid dictionary or instance of JudgeProfile",
    "[defaults]\ncandidates = 100": "defaults.candidates: Input should be less than or equal to 64",
    "[defaults]\nwidth = 65": "defaults.width: Input should be a multiple of 8",
    '[defaults]\ncollection = "a/b"': "defaults.collection: Input is no plain name, which begins "
    "with a letter or digit and has at most 100 of A-Z a-z 0-9 _ . -; no path and no address",
    "[jugde]\nbatch = 1": "jugde: Extra inputs are not permitted",
    '[guard]\nkind = "terms"': "guard: guards are a list: write [[guard]] above each",
    '[[guard]]\nterms = ["a"]': "guard.0.kind: Field required",
    '[[guard]]\nkind = "words"': "guard.0.kind: Input should be 'terms' or 'concept' or "
    "'classifier' or 'endpoint'",
    '[[guard]]\nkind = "terms"\nterms = []': "guard.0.terms: Tuple should have at least 1 item "
    "after validation, not 0",
    f"{GUARD}threshold = 0.1": "guard.0.threshold: the kind 'terms' has no such key; 'concept' and "
    "'classifier' and 'endpoint' have",
    f'{GUARD}places = ["output"]': "guard.0.places.0: Input should be 'keywords', 'passages' or "
    "'prompt'",
    f'{GUARD}action = "rewrite"\nplaces = ["keywords"]': "guard 'terms': it rewrites prompts, and "
    "has no place `prompt`",
    GUARD * 2: "two guards have one name (terms, terms): set guard.name",
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.items())
def test_a_key_without_a_meaning_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "shapes"\n{text}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        Profile.load(str(path))
    assert refused.value.detail == f"profile {str(path)!r}: {problem}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [('[writer]\nmodel = "m"\n', r"writer\.kind: Field required"), ("", "writer: Field required")],
)
def test_a_section_or_a_kind_that_is_missing_is_named(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        Profile.load(str(path))


def test_another_kind_keeps_what_it_knows_of_the_extended_profile(tmp_path: Path) -> None:
    sd15 = Profile.load("sd15").writer
    assert (sd15.kind, sd15.dtype, sd15.max_tokens) == ("local", "bfloat16", 200)
    endpoint = Profile.load("endpoint").writer
    assert (endpoint.kind, endpoint.timeout, endpoint.max_tokens) == ("endpoint", 120, 200)
    path = tmp_path / "mine.toml"
    path.write_text('extends = "endpoint"\n[writer]\nkind = "template"\n', encoding="utf-8")
    assert Profile.load(str(path)).writer == TemplateWriterProfile()


@pytest.mark.parametrize(
    ("table", "model"),
    [
        ("retrieval.collections.NAME", CollectionProfile),
        ("renderer.controls.NAME", ControlProfile),
        ("renderer.image_adapter.NAME", ImageAdapterProfile),
        ("renderer.memory", MemoryProfile),
    ],
)
def test_every_key_of_a_table_is_documented_with_its_default_and_no_other(
    table: str, model: type[BaseModel]
) -> None:
    key = rf"^\| `{re.escape(table)}\.([a-z_]+)` \| (.*?) \|"
    assert dict(re.findall(key, DOCUMENT, re.MULTILINE)) == {
        name: _shown(field.get_default(), field.is_required())
        for name, field in model.model_fields.items()
    }


def _shown(default: object, required: bool) -> str:
    if required:
        return "required"
    if isinstance(default, BaseModel):
        return "below"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple) and default:
        default = "[" + ", ".join(_inline(item) for item in default) + "]"
    return f"`{default}`" if default not in (None, "", (), {}, PydanticUndefined) else "empty"


def _inline(item: BaseModel) -> str:
    """As TOML has it."""
    return "{ " + ", ".join(f"{key} = {value}" for key, value in item) + " }"


def test_the_example_profiles_of_the_documentation_load(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    judging = Path("docs/judging.md").read_text(encoding="utf-8")
    for example in re.findall(r"```toml\n(.*?)```", DOCUMENT + judging, re.DOTALL):
        begun = example if "extends" in example else f'extends = "sdxl"\n{example}'
        path.write_text(begun, encoding="utf-8")
        Profile.load(str(path))
    (example,) = re.findall(r"```toml\n(# shop.toml.*?)```", DOCUMENT, re.DOTALL)
    path.write_text(example, encoding="utf-8")
    shop, sdxl = Profile.load(str(path)), Profile.load("sdxl")
    assert shop.name == "shop"
    assert [judge.name for judge in shop.judge] == ["clip"]
    assert shop.judge[0] == sdxl.judge[0].model_copy(update={"against": "keywords"})
    assert shop.renderer.model != sdxl.renderer.model


def test_a_listed_judge_begins_from_the_judge_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    added = '[[judge]]\nname = "b"\nmodel = "m"\nslope = 2'
    path.write_text(f'extends = "sdxl"\n[[judge]]\nbatch = 3\n{added}\n', encoding="utf-8")
    (own,), (first, second) = Profile.load("sdxl").judge, Profile.load(str(path)).judge
    assert first == own.model_copy(update={"batch": 3})
    assert (second.name, second.kind, second.model, second.slope) == ("b", "clip", "m", 2)
    assert second.dtype != own.dtype
    path.write_text(f'extends = "sdxl"\n{added}\n', encoding="utf-8")
    assert [judge.name for judge in Profile.load(str(path)).judge] == ["b"]


def test_guards_of_an_extended_profile_stay(tmp_path: Path) -> None:
    base, path = tmp_path / "base.toml", tmp_path / "mine.toml"
    guard = '[[guard]]\nkind = "terms"\nname = "{}"\nterms = ["{}"]\n'.format
    base.write_text('extends = "shapes"\n' + guard("house", "gore") + guard("brand", "acme"))
    path.write_text(f'extends = "{base}"\n' + guard("brand", "apex") + guard("mine", "dull"))
    found = [(each.name, each.model_dump()["terms"]) for each in Profile.load(str(path)).guard]
    assert found == [("house", ("gore",)), ("brand", ("apex",)), ("mine", ("dull",))]
    path.write_text(f'extends = "{base}"\n')
    assert [each.name for each in Profile.load(str(path)).guard] == ["house", "brand"]


def test_another_scheduler_keeps_none_of_the_settings(tmp_path: Path) -> None:
    base, path = tmp_path / "base.toml", tmp_path / "mine.toml"
    base.write_text(
        'extends = "sdxl"\n[renderer.scheduler_settings]\ntimestep_spacing = "trailing"\n'
    )

    def settings(renderer: str) -> object:
        path.write_text(f'extends = "{base}"\n[renderer]\n{renderer}\n', encoding="utf-8")
        return Profile.load(str(path)).renderer.scheduler_settings

    assert settings("batch = 3") == {"timestep_spacing": "trailing"}
    assert settings('scheduler = "EulerDiscreteScheduler"') == {"timestep_spacing": "trailing"}
    assert settings('scheduler = "LCMScheduler"') == {}
    both = "[renderer.scheduler_settings]\nuse_karras_sigmas = true\nsteps_offset = 1"
    assert settings(both) == {
        "timestep_spacing": "trailing",
        "use_karras_sigmas": True,
        "steps_offset": 1,
    }


def test_a_run_whose_profile_has_a_key_without_a_meaning_is_refused_by_name() -> None:
    shapes = Profile.load("shapes")
    spec = make_spec(profile=shapes.model_dump(mode="json"))
    assert profile_of(spec) == shapes
    spec.profile["writer"]["text_template"] = "{keywords}"
    with pytest.raises(RunError, match=r"run demo is of another version .*writer\.text_template"):
        profile_of(spec)
