"""The gallery's page: what it holds, how it holds it, and the files of large runs."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.runs.gallery import page as gallery
from flows.runs.gallery.page import Gallery, embedded, histogram
from flows.runs.lines import RunLines
from pipeline.job import BadRow, Brief, Context, Job, Passage, Reference, Score, ScorePart
from pipeline.models import references
from pipeline.profile import Profile
from pipeline.record import CandidateRecord, Outcome, RunSpec, Status
from pipeline.records.manifest import COLUMNS, build_manifest, read_manifest
from pipeline.records.run_folder import RunFolder
from pipeline.storage.folder import FolderStore
from tests.harness.jobs import make_job, make_outcome, make_spec

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 &amp; logo"


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder(FolderStore(tmp_path), "demo")


def job(row: int, **fields: Any) -> Job:
    defaults = {
        "id": f"job{row}", "row": row, "keywords": f"circle {row}", "candidates": 2, "width": 16,
        "height": 16, "steps": 5, "guidance": 4.0, "seed": 100 * row,
    }  # fmt: skip
    return make_job(**defaults | fields)


def outcome(one: Job, status: Status = Status.ACCEPTED, **fields: Any) -> Outcome:
    scores = (0.25, 0.875) if status is Status.ACCEPTED else (0.125, 0.25)
    defaults = {
        "candidates": tuple(
            CandidateRecord(index=i, seed=one.seed + i, score=Score(raw=0.3, calibrated=score))
            for i, score in enumerate(scores)
        ),
        "context": Context(
            passages=(
                Passage(id="p", text="A <b>fact</b>.", title="The mark", source="b.md", score=1.0),
            )
        ),
        "brief": Brief(text="A text.", prompt="a circle", sources=("p",)),
        "device_seconds": {},
    }
    return make_outcome(one, **defaults | {"status": status} | fields)


def fill(run_folder: RunFolder, rows: list[Job | BadRow], ended: list[Outcome]) -> RunSpec:
    """Books of a run that ended so."""
    spec = make_spec(rows=len(rows), shards=1)
    run_folder.write_spec(spec)
    run_folder.shards.write(spec.fingerprint, 1, rows)
    image = np.full((16, 16, 3), 0.5, dtype=np.float32)
    for one in ended:
        run_folder.records.commit(one, None if one.winner is None else image)
    for row in rows:
        if isinstance(row, BadRow):
            run_folder.records.reject(row)
    build_manifest(run_folder, RunLines(run_folder, spec).tables(*COLUMNS))
    return spec


def page_of(run_folder: RunFolder, spec: RunSpec, named: RunSpec | None = None) -> str:
    page = Gallery(run_folder)
    for table in RunLines(run_folder, spec).tables("card"):
        page.add(map(json.loads, table["card"].to_pylist()))
    address = page.write(named or spec, read_manifest(run_folder))
    return Path(address).read_text(encoding="utf-8")


def facts_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)
    assert found
    facts: dict[str, Any] = json.loads(found[1])
    return facts


def cards_of(page: str) -> list[dict[str, Any]]:
    return [card for chunk in facts_of(page)["chunks"] for card in chunk["cards"]]


def many(run_folder: RunFolder, count: int) -> RunSpec:
    jobs = [job(row) for row in range(1, count + 1)]
    return fill(run_folder, list(jobs), [outcome(one) for one in jobs])


def test_a_card_tells_how_the_image_came_to_be(run_folder: RunFolder, tmp_path: Path) -> None:
    one = job(2, name="first", style="small", meta={"product": "mug"})
    page = page_of(
        run_folder, fill(run_folder, [one], [outcome(one, notices=("the prompt was cut",))])
    )
    (card,) = cards_of(page)
    image = card.pop("image")
    assert image.startswith("../images/job2-")
    assert (tmp_path / "runs/demo/gallery" / image).resolve().is_file()
    assert card == {
        "job_id": "job2", "row": 2, "name": "first", "keywords": "circle 2", "outcome": "accepted",
        "score": 0.875, "seed": 201, "width": 16, "height": 16, "winner": 1,
        "candidates": [[0, 200, 0.25, 0.3], [1, 201, 0.875, 0.3]], "device_seconds": 0,
        "prompt": "a circle", "text": "A text.", "style": "small", "threshold": 0.5, "steps": 5,
        "guidance": 4.0, "meta": {"product": "mug"}, "sources": [[0, 1.0, 1]],
        "notices": ["the prompt was cut"],
    }  # fmt: skip
    passages = facts_of(page)["chunks"][0]["passages"]
    assert passages == [["The mark", "b.md", "A <b>fact</b>."]]


def test_a_source_that_was_not_used_is_told_apart(run_folder: RunFolder) -> None:
    image = f"knowledge/images/{0:064x}.png"
    shown, asleep = (
        Reference(id=str(scale), text="", score=1.0, image=image, scale=scale, title=str(scale))
        for scale in (0.5, 0.0)
    )
    passages = tuple(Passage(id=key, text=key, score=1.0) for key in ("read", "left out"))
    ended = outcome(
        job(2),
        context=Context(passages=passages, references=(shown, asleep)),
        brief=Brief(text="A text.", prompt="a circle", sources=("read",)),
    )
    (card,) = cards_of(page_of(run_folder, fill(run_folder, [job(2)], [ended])))
    assert [used for _, _, used in card["sources"]] == [1, 0, 1, 0]
    (line,) = read_manifest(run_folder).lines("sources")
    assert line["sources"] == ["read"]
    early = ended.model_copy(update={"candidates": (), "brief": None})
    assert not any(map(early.uses, early.context.sources))


def test_rows_without_an_image_have_a_card_with_the_reason(run_folder: RunFolder) -> None:
    blocked = outcome(
        job(2), Status.BLOCKED, reason="the term 'x'", brief=None, candidates=(), winner=None
    )
    bad = BadRow(id="bad", row=3, column="steps", reason="not a number", keywords="circle 3")
    cards = cards_of(page_of(run_folder, fill(run_folder, [job(2), bad], [blocked])))
    assert [(card["outcome"], card["reason"]) for card in cards] == [
        ("blocked", "the term 'x'"),
        ("invalid", "column 'steps': not a number"),
    ]
    assert not any("image" in card or "score" in card for card in cards)


def test_why_a_candidate_is_invalid_is_told(run_folder: RunFolder) -> None:
    blank = Score(raw=0, calibrated=0, valid=False, reason="blank")
    ended = outcome(job(2))
    records = (ended.candidates[1], CandidateRecord(index=2, seed=9, score=blank))
    spec = fill(run_folder, [job(2)], [ended.model_copy(update={"candidates": records})])
    assert cards_of(page_of(run_folder, spec))[0]["candidates"][1] == [2, 9, 0, 0, "blank"]


def test_each_judges_chance_is_told_where_there_are_several(run_folder: RunFolder) -> None:
    clip = ScorePart(judge="clip", raw=0.3, calibrated=0.25)
    dear = ScorePart(judge="questions", raw=1, calibrated=0.5, answers=(0.5,))
    ended = outcome(job(2))
    records = [
        candidate.model_copy(
            update={
                "score": candidate.score and candidate.score.model_copy(update={"parts": parts})
            }
        )
        for candidate, parts in zip(ended.candidates, [(clip,), (clip, dear)], strict=True)
    ]
    spec = fill(run_folder, [job(2)], [ended.model_copy(update={"candidates": tuple(records)})])
    (card,) = cards_of(page_of(run_folder, spec))
    assert card["judges"] == ["clip", "questions"]
    assert card["candidates"] == [
        [0, 200, 0.25, 0.3, "", [0.25, None]], [1, 201, 0.875, 0.3, "", [0.25, 0.5]]
    ]  # fmt: skip


def test_the_head_counts_and_names_what_was_used(run_folder: RunFolder) -> None:
    jobs = [job(2), job(3), job(4)]
    ended = [outcome(jobs[0]), outcome(jobs[1]), outcome(jobs[2], Status.BELOW_GATE)]
    page = page_of(run_folder, fill(run_folder, list(jobs), ended))
    assert "<title>demo · Pressrun</title>" in page
    assert re.search(r'data-outcome="accepted" aria-pressed="true"><i></i>accepted <b>2</b>', page)
    assert re.search(r'data-outcome="below_gate"[^>]*><i></i>below gate <b>1</b>', page)
    assert re.search(r'data-outcome="failed"[^>]* disabled>', page)
    assert "<b>shapes</b>" in page
    assert "<td>diffusion</td><td><code>0123456789abcdef</code></td>" in page


def test_each_role_is_named_with_its_model(run_folder: RunFolder) -> None:
    spec = many(run_folder, 1)
    kinds = [("clip", "clip"), ("questions", "asked"), ("clip", "taste")]
    adapter = {"a": {"model": "first-adapter"}, "b": {"model": "second-adapter"}}
    own = {"kind": "diffusers", "model": "own", "controls": {"edges": {"model": "own-edges"}}}
    changed = {
        "judge": [{"kind": kind, "name": name, "model": f"{name}-model"} for kind, name in kinds],
        "guard": [{"kind": "classifier", "name": "nsfw", "model": "seen", "labels": ["x"]}],
        "writer": {"kind": "local", "model": "writing", "checks": 1},
        "renderer": {"kind": "diffusers", "model": "diffusion", "image_adapter": adapter},
        "renderers": {"other": own},
    }
    named = Profile.model_validate(spec.profile | changed)
    roles = references(named)
    wanted = {"vision_language::asked", "judge::taste", "guard:nsfw", "image_adapter::b"}
    assert wanted | {"control:edges:other", "writer", "image_encoder"} <= roles.keys()
    fields = {"profile": named.model_dump(mode="json"), "models": dict.fromkeys(roles, "d" * 24)}
    page = page_of(run_folder, spec, spec.model_copy(update=fields))
    for role, reference in roles.items():
        assert f"{role}</th><td>{reference}</td>" in page


def test_a_run_of_another_version_shows_its_models_without_their_names(
    run_folder: RunFolder,
) -> None:
    spec = many(run_folder, 1)
    other = spec.model_copy(update={"profile": {"judge": {"model": "of long ago"}}})
    assert "renderer</th><td></td><td><code>0123456789abcdef" in page_of(run_folder, spec, other)


def test_the_histogram_counts_winners_by_score(run_folder: RunFolder) -> None:
    jobs = [job(2), job(3)]
    fill(run_folder, list(jobs), [outcome(jobs[0]), outcome(jobs[1], Status.BELOW_GATE)])
    bars = {bar.left: (bar.passed, bar.below) for bar in histogram(read_manifest(run_folder))}
    assert bars.pop(0.85) == (1, 0)
    assert bars.pop(0.25) == (0, 1)
    assert set(bars.values()) == {(0, 0)}


def test_outside_text_never_becomes_markup(run_folder: RunFolder) -> None:
    one = job(2, keywords=HOSTILE, style=HOSTILE, meta={"x": HOSTILE})
    passage = Passage(id="p", text=HOSTILE, title=HOSTILE, source=HOSTILE, score=1.0)
    hostile = outcome(
        one,
        reason=HOSTILE,
        brief=Brief(text=HOSTILE, prompt=HOSTILE),
        context=Context(passages=(passage,)),
    )
    spec = fill(run_folder, [one], [hostile])
    named = spec.model_copy(update={"job_file": HOSTILE, "profile": {"name": HOSTILE}})
    page = page_of(run_folder, spec, named)
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count("<!--") == 0
    assert cards_of(page)[0]["keywords"] == HOSTILE


@pytest.mark.parametrize("value", [HOSTILE, {"<": [">", "&"]}, [None, 0.5, "é😀\\"]])
def test_embedded_json_says_the_same_without_markup(value: Any) -> None:
    text = embedded(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_the_page_lets_nothing_run_but_its_own_script(run_folder: RunFolder) -> None:
    page = page_of(run_folder, many(run_folder, 1))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert content
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules[rule]
    assert "unsafe" not in policy[1]
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_cards_of_a_large_run_lie_in_files_beside_the_page(
    run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "LARGEST_INLINE", 4)
    monkeypatch.setattr(gallery, "CHUNK", 2)
    facts = facts_of(page_of(run_folder, many(run_folder, 5)))
    assert facts["chunks"] == []
    assert (facts["outcomes"], facts["scores"], facts["chunk"]) == ("00000", [0.875] * 5, 2)
    keys = list(run_folder.store.keys("runs/demo/gallery/"))
    assert [key.rpartition("/")[2] for key in keys] == [
        "data-0.js", "data-1.js", "data-2.js", "index.html",
    ]  # fmt: skip
    script = run_folder.blob("gallery/data-1.js").decode()
    call = re.fullmatch(r"gallery\.take\(1,(.*)\);\n", script)
    assert call
    assert [card["row"] for card in json.loads(call[1])["cards"]] == [3, 4]


def test_files_of_an_earlier_and_larger_gallery_go(
    run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = many(run_folder, 5)
    with monkeypatch.context() as patch:
        patch.setattr(gallery, "LARGEST_INLINE", 4)
        page_of(run_folder, spec)
    assert len(cards_of(page_of(run_folder, spec))) == 5
    assert list(run_folder.store.keys("runs/demo/gallery/")) == ["runs/demo/gallery/index.html"]


def test_a_run_without_rows_still_has_a_page(run_folder: RunFolder) -> None:
    assert cards_of(page_of(run_folder, fill(run_folder, [], []))) == []
