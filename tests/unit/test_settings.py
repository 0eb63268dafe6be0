from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.profile import PROFILES, Profile
from pipeline.settings import load_settings
from workers.queue.messages import Queue


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_profile_is_valid(path: Path) -> None:
    assert Profile.load(path.stem).name == path.stem


def test_a_profile_extends_another_table_by_table(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "shapes"\n[defaults]\nsteps = 7\n', encoding="utf-8")
    profile, base = Profile.load(str(mine)), Profile.load("shapes")
    assert (profile.name, profile.defaults.steps) == ("mine", 7)
    assert profile.defaults.candidates == base.defaults.candidates
    assert profile.renderer == base.renderer


def test_a_profile_names_collections_that_other_tools_wrote(tmp_path: Path) -> None:
    named = '[retrieval.collections.{}]\nwritten_by = "{}"\n'
    mine = tmp_path / "mine.toml"
    parts = ['extends = "shapes"', named.format("a", "haystack"), named.format("b", "langchain")]
    mine.write_text("\n".join(parts), encoding="utf-8")
    profile = Profile.load(str(mine)).retrieval
    assert [each.written_by for each in profile.collections.values()] == ["haystack", "langchain"]
    turned = {"collections": dict(reversed(profile.collections.items()))}
    assert len({profile, profile.model_copy(update=turned)}) == 1
    assert len({profile, Profile.load("shapes").retrieval}) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('extends = "shapes"\n[renderer]\nstepz = 3\n', "renderer.stepz"),
        ('extends = "nowhere"\n', "nowhere"),
        ("[renderer", "mine.toml"),
        ('extends = "shapes"\n[retrieval.collections.a]\nwritten_by = "me"\n', "a.written_by"),
        ('extends = "shapes"\n[[judge]]\nagainst = "mood"\n', "judge.0.against"),
    ],
)
def test_an_invalid_profile_is_refused_with_the_mistake(
    tmp_path: Path, text: str, complaint: str
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint):
        Profile.load(str(mine))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("PRESSRUN_WINDOW", "8")
    assert load_settings().store == "s3://bucket/prefix"
    assert load_settings(store="here", window=None).window == 8
    monkeypatch.setenv("PRESSRUN_STORE", "gs://bucket")
    with pytest.raises(ConfigError, match="gs://bucket"):
        load_settings()


def test_secrets_come_from_files_where_the_environment_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.settings.SECRETS", tmp_path)
    (tmp_path / "pressrun_redis_url").write_text("redis://:p@redis:6379/0\n", encoding="utf-8")
    (tmp_path / "pressrun_window").write_text("7", encoding="utf-8")
    assert load_settings().redis_url == "redis://:p@redis:6379/0"
    monkeypatch.setenv("PRESSRUN_WINDOW", "8")
    assert load_settings().window == 8
    monkeypatch.delenv("PRESSRUN_WINDOW")
    (tmp_path / "pressrun_window").write_text("many", encoding="utf-8")
    with pytest.raises(ConfigError, match="PRESSRUN_WINDOW"):
        load_settings()


def test_secrets_do_not_show() -> None:
    settings = load_settings(
        qdrant_api_key="canary", writer_api_key="canary", judge_api_key="canary"
    )
    assert "canary" not in repr(settings)
    assert "canary" not in settings.model_dump_json()


def test_a_piece_of_a_password_is_not_in_the_complaint() -> None:
    with pytest.raises(ConfigError, match="PRESSRUN_REDIS_URL") as caught:
        Queue.connect("redis://:hunter#2@h:6379/0")
    assert "hunter" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_place_may_be_below_the_home_and_is_no_address_by_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("STORE", "INBOX", "HOME", "MODELS"):
        monkeypatch.setenv(f"PRESSRUN_{name}", "~/images")
    settings = load_settings()
    places = {settings.store, settings.inbox, str(settings.home), str(settings.models)}
    assert places == {str(tmp_path / "images")}
    for name in ("store", "inbox"):
        for written in ("s3:/pics/x", "S3://pics/x", "s3:pics"):
            with pytest.raises(ConfigError, match="s3://bucket/prefix"):
                load_settings(**{name: written})
