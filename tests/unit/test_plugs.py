"""A judge, a retriever and a condition are one file and one line of a registry each."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import profile
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.knowledge import open_library
from pipeline.assemble.models import model_digests
from pipeline.errors import ConfigError, ModelError
from pipeline.job import ImageArray, Rung
from pipeline.media.image import decode
from pipeline.models import digest
from pipeline.profile import Plug, Profile
from pipeline.record import Outcome, Status
from pipeline.rendering import diffusers
from pipeline.rendering.conditions import CONDITIONS
from pipeline.run import run_job
from pipeline.settings import Settings, load_settings
from tests.harness.chat_server import chat_server, likeliest, question_in
from tests.harness.jobs import make_job, make_spec
from tests.harness.toy_condition import Fog

KINDS = "judge.0.kind: Input should be " + " or ".join(map(repr, [*profile.JUDGES, "brightness"]))


@pytest.fixture(autouse=True)
def _lines_of_the_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, retriever = "tests.harness.toy_judge", "tests.harness.toy_retriever"
    plug = Plug(f"{judge}:BrightnessProfile", f"{judge}:BrightnessJudge")
    monkeypatch.setitem(profile.JUDGES, "brightness", plug)
    plug = Plug(f"{retriever}:PhraseProfile", f"{retriever}:PhraseRetriever")
    monkeypatch.setitem(profile.RETRIEVERS, "phrases", plug)
    monkeypatch.setattr(diffusers, "CONDITIONS", [*CONDITIONS, Fog])


def written(tmp_path: Path, text: str) -> Settings:
    """Settings with a profile of this text over the shipped small models."""
    path = tmp_path / "toys.toml"
    path.write_text(f'extends = "shapes"\n{text}\n', encoding="utf-8")
    return load_settings(home=tmp_path / "home", store=str(tmp_path / "out"), profile=str(path))


def run(settings: Settings, **fields: object) -> Outcome:
    """One job, through the composition root, as a worker gets it: from a run's spec."""
    chosen = settings.chosen_profile
    models = model_digests(settings, chosen)
    spec = make_spec(profile=chosen.model_dump(mode="json"), models=models)
    assembly = Assembly(settings)
    assembly.run_folder(spec.run).write_spec(spec)
    return run_job(make_job(**fields), assembly.ports(spec))


def test_a_job_with_an_added_judge(tmp_path: Path) -> None:
    settings = written(tmp_path, '[[judge]]\nkind = "brightness"\nmiddle = 0.25\nagainst = "text"')
    outcome = run(settings, candidates=3, threshold=0.1)
    assert outcome.status == Status.ACCEPTED
    assert "judge" not in outcome.models
    scores = [candidate.score for candidate in outcome.candidates]
    raws = [score.raw for score in scores if score]
    assert len(raws) == 3
    for score in scores:
        assert score is not None
        assert score.calibrated == pytest.approx(score.raw / (score.raw + 0.25))
    assert outcome.winner == raws.index(max(raws))


def test_a_job_whose_judge_is_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_JUDGE_API_KEY", "sk-canary")
    check = '{ kind = "object", question = "is there a {keywords} ?" }'
    text = f'[writer]\nkind = "template"\nquestions = [{check}]\n[[judge]]\nmodel = "m"\n'
    answer = likeliest({"Yes": 0.8, "No": 0.2})
    with chat_server(lambda _: answer) as server:
        monkeypatch.setenv("PRESSRUN_JUDGE_URL", server.url)
        settings = written(tmp_path, f'{text}kind = "questions_endpoint"')
        outcome = run(settings, keywords="red ring", candidates=2, threshold=0.7)
    assert outcome.status == Status.ACCEPTED
    for candidate in outcome.candidates:
        assert candidate.score
        assert candidate.score.parts[0].answers == pytest.approx([0.8])
    assert {question_in(call) for call in server.calls} == {
        "is there a red ring ? Answer with Yes or No."
    }
    assert {call.headers["Authorization"] for call in server.calls} == {"Bearer sk-canary"}
    assert outcome.device_seconds["judge"] > 0


def test_each_judges_model_is_recorded_and_compared(tmp_path: Path) -> None:
    text = '[[judge]]\nkind = "brightness"\n[[judge]]\nname = "second"\nmodel = "open_clip"'
    settings = written(tmp_path, text)
    outcome = run(settings, candidates=2, threshold=0.0)
    assert outcome.models["judge::second"] == digest(settings.models / "open_clip", "judge")
    for candidate in outcome.candidates:
        assert candidate.score
        assert [part.judge for part in candidate.score.parts] == ["brightness", "second"]
    others = {"judge::second": "0" * 64}
    with pytest.raises(ModelError, match="The judge::second 'open_clip' here"):
        Assembly(settings).compare(settings.chosen_profile, "demo", others)


@pytest.mark.parametrize("contest", ["best_of", "race"])
def test_a_finalists_judge_sees_the_best_candidate_of_a_job(tmp_path: Path, contest: str) -> None:
    second = '[[judge]]\nname = "second"\nmodel = "open_clip"\nfinalists = 1'
    settings = written(tmp_path, f'[[judge]]\nkind = "brightness"\n{second}')
    fields = {"contest": contest, "rungs": (Rung(at=0.5, keep=0.5),), "steps": 4}
    outcome = run(settings, candidates=4, threshold=0.0, **fields)
    assert outcome.status == Status.ACCEPTED
    previews = [score for candidate in outcome.candidates for score in candidate.previews]
    assert len(previews) == (4 if contest == "race" else 0)
    for score in previews:
        assert ([part.judge for part in score.parts], score.final) == (["brightness"], False)
    finished = {c.index: c.score for c in outcome.candidates if c.score}
    bright = {index: score.parts[0].raw for index, score in finished.items()}
    assert len(bright) == (2 if contest == "race" else 4)
    assert outcome.winner == max(bright, key=bright.__getitem__)
    assert [index for index, score in finished.items() if score.final] == [outcome.winner]
    assert [len(score.parts) for score in finished.values()].count(2) == 1


def test_a_job_with_an_added_retriever(tmp_path: Path) -> None:
    phrases = '["a red ring", "a blue star", "the red square"]'
    settings = written(tmp_path, f'[retrieval]\nkind = "phrases"\nphrases = {phrases}')
    outcome = run(settings, passages=2, mode="retrieved", collection="any")
    assert [passage.text for passage in outcome.context.texts] == ["a red ring", "the red square"]
    assert outcome.brief is not None
    assert outcome.brief.text == "a red ring the red square"
    with pytest.raises(ConfigError, match="'phrases' has no library"):
        open_library(settings, settings.chosen_profile)


def test_a_job_with_an_added_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = written(tmp_path, '[writer]\nkind = "template"')

    def image(name: str, keywords: str) -> ImageArray:
        outcome = run(settings, keywords=keywords, id=name, seed=3, candidates=1, threshold=0.0)
        assert outcome.image
        return decode(Path(settings.store, "runs", outcome.run, outcome.image.path).read_bytes())

    clear, foggy = image("clear", "red circle"), image("foggy", "red circle in the fog")
    smoky = run(settings, keywords="smoke", id="smoky", candidates=1)
    assert smoky.status == Status.FAILED
    assert smoky.reason == "there is fog here, and no smoke"
    monkeypatch.setattr(diffusers, "CONDITIONS", CONDITIONS)
    assert np.array_equal(clear, image("without_clear", "red circle"))
    assert not np.array_equal(foggy, image("without_foggy", "red circle in the fog"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[judge]]\nkind = "dino"', KINDS),
        (
            '[[judge]]\nkind = "brightness"\nhead = "h"',
            "judge.0.head: the kind 'brightness' has no such key; 'aesthetic' has",
        ),
        (
            "[[judge]]\nmiddle = 1",
            "judge.0.middle: the kind 'clip' has no such key; 'brightness' has",
        ),
        (
            '[[judge]]\nkind = "brightness"\nmiddle = 2',
            "judge.0.middle: Input should be less than 1",
        ),
        (
            '[retrieval]\nkind = "phrases"\nfloor = 0.1',
            "retrieval.floor: the kind 'phrases' has no such key; 'qdrant' has",
        ),
    ],
)
def test_its_keys_are_its_kinds_own(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _ = written(tmp_path, text).chosen_profile
    assert refused.value.detail.endswith(f": {problem}")


def test_a_profile_survives_its_way_through_a_spec(tmp_path: Path) -> None:
    text = '[[judge]]\nkind = "brightness"\n[retrieval]\nkind = "phrases"\nphrases = ["a"]'
    chosen = written(tmp_path, text).chosen_profile
    assert Profile.model_validate(chosen.model_dump(mode="json")) == chosen
