"""Guards that have a refused prompt written anew: once, and judged again."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.assemble.assembly import Assembly
from pipeline.errors import Blocked, Rewritable, Unavailable
from pipeline.record import Outcome, Status
from pipeline.run import run_job
from pipeline.safety.guards import Guards, TextGuard
from pipeline.safety.terms import Terms
from pipeline.settings import load_settings
from tests.harness.chat_server import Call, Reply, chat_server, completion, refusal
from tests.harness.jobs import make_job, make_spec

SKULLS = '[[guard]]\nkind = "terms"\nname = "bones"\nterms = ["skull"]\naction = "rewrite"\n'
KNIVES = '[[guard]]\nkind = "terms"\nname = "weapons"\nterms = ["knife"]\n'
ASKED = '[writer]\nkind = "endpoint"\nmodel = "m"\n'
FIRST, OTHER = "a skull on white", "a red circle on white"


def written(text: str, prompt: str) -> Reply:
    return completion(json.dumps({"text": text, "prompt": prompt}))


def run(folder: Path, url: str, guards: str, writer: str = ASKED, **fields: Any) -> Outcome:
    """One job as a worker gets it; the writer's server has this address."""
    path, home, store = folder / "mine.toml", folder / "home", str(folder / "out")
    path.write_text(f'extends = "shapes"\n{writer}{guards}', encoding="utf-8")
    settings = load_settings(home=home, store=store, profile=str(path), writer_url=url)
    profile = settings.chosen_profile.model_dump(mode="json")
    spec, assembly = make_spec(profile=profile, models={}), Assembly(settings)
    assembly.run_folder(spec.run).write_spec(spec)
    job = make_job(keywords="an emblem", mode="generated", candidates=1, **fields)
    return run_job(job, assembly.ports(spec))


def asked(call: Call) -> str:
    return str(call.body["messages"][1]["content"])


@pytest.mark.parametrize("text", ["A skull.", "A circle."])
def test_a_refused_prompt_is_written_anew_and_recorded(tmp_path: Path, text: str) -> None:
    replies = iter([written(text, FIRST), written("A circle.", OTHER)])
    with chat_server(lambda _: next(replies)) as server:
        outcome = run(tmp_path, server.url, SKULLS + KNIVES, threshold=0.0)
    assert outcome.status is Status.ACCEPTED
    assert outcome.brief
    assert (outcome.brief.text, outcome.brief.prompt) == ("A circle.", OTHER)
    reason = "guard 'bones' at prompt: the text holds 'skull'"
    assert outcome.refused
    assert (outcome.refused.brief.prompt, outcome.refused.reason) == (FIRST, reason)
    assert f"the prompt was rewritten: {reason}" in outcome.notices
    first, second = server.calls
    assert "rule" not in asked(first)
    assert asked(second).endswith(f"earlier prompt: {FIRST}\nrule: bones")


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (written("A skull.", OTHER), "guard 'bones' at prompt: the text holds 'skull'"),
        (written("A knife.", OTHER), "guard 'weapons' at prompt: the text holds 'knife'"),
        (completion(""), "the text holds 'skull'; the prompt was not rewritten: the writer's serv"),
        (refusal(400, "I will not"), "the text holds 'skull'; the prompt was not rewritten: "),
    ],
    ids=["the same", "another rule", "nothing", "refused"],
)
def test_a_prompt_is_written_anew_once(tmp_path: Path, second: Reply, reason: str) -> None:
    replies = iter([written("A circle.", FIRST)])
    with chat_server(lambda _: next(replies, second)) as server:
        outcome = run(tmp_path, server.url, SKULLS + KNIVES)
    assert (outcome.status, outcome.image, outcome.candidates) == (Status.BLOCKED, None, ())
    assert reason in outcome.reason
    assert outcome.refused
    assert outcome.refused.brief.prompt == FIRST


def test_what_another_guard_refuses_is_blocked_at_once(tmp_path: Path) -> None:
    with chat_server(lambda _: written("A knife.", FIRST)) as server:
        outcome = run(tmp_path, server.url, SKULLS + KNIVES)
    assert outcome.reason == "guard 'weapons' at prompt: the text holds 'knife'"
    assert (outcome.status, outcome.refused, len(server.calls)) == (Status.BLOCKED, None, 1)


def test_a_writer_that_is_gone_hands_the_job_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.http.FIRST_WAIT", 0.01)
    replies = iter([written("A circle.", FIRST)])
    busy = refusal(503, "busy")
    with chat_server(lambda _: next(replies, busy)) as server, pytest.raises(Unavailable):
        run(tmp_path, server.url, SKULLS)


def test_a_template_writes_the_same_and_is_blocked(tmp_path: Path) -> None:
    template = f'[writer]\nkind = "template"\nprompt_template = "{FIRST}"\n'
    outcome = run(tmp_path, "", SKULLS, template)
    assert (outcome.status, outcome.candidates) == (Status.BLOCKED, ())
    assert outcome.refused


def test_only_prompts_and_only_findings_are_rewritten() -> None:
    def broken(text: str) -> str:
        raise ZeroDivisionError

    places = ("keywords", "prompt")
    bones = TextGuard("bones", "rewrite", places, Terms(["skull"]).reason, "bones: no skeletons")
    with pytest.raises(Rewritable) as refusal:
        Guards([bones]).check_text("a skull", "prompt")
    assert refusal.value.rule == "bones: no skeletons"
    for guard, place in (
        (bones, "keywords"),
        (TextGuard("b", "rewrite", places, broken), "prompt"),
    ):
        with pytest.raises(Blocked) as blocked:
            Guards([guard]).check_text("a skull", place)
        assert not isinstance(blocked.value, Rewritable)
