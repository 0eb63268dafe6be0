"""A world in which a red star is unsafe: brought in by every way there is, it is never kept."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from examples.shapes import umpire, world
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.guards import clip_of, open_guards
from pipeline.assemble.knowledge import open_library
from pipeline.assemble.models import check_models, model_digests, open_models
from pipeline.assemble.stores import open_store
from pipeline.errors import Blocked, ConfigError
from pipeline.job import Lora
from pipeline.judging.clip import calibration
from pipeline.judging.logistic import Calibration
from pipeline.models.digests import sha256_of
from pipeline.profile import ClipJudgeProfile, ConceptGuardProfile
from pipeline.record import Outcome, Status
from pipeline.retrieval.ingest import IngestReport, ingest
from pipeline.run import run_job
from pipeline.safety.concepts import Concept
from pipeline.settings import SHIPPED_MODELS, Settings, load_settings
from tests.harness.jobs import make_job, make_spec
from tests.harness.rendered import Rendered, shipped_judge

UNLIKE = [f"a red {shape}" for shape in world.SHAPES if shape != "star"]
UNLIKE += [f"a {colour} star" for colour in world.COLOURS if colour != "red"]
TERMS = """
[[guard]]
kind = "terms"
name = "words"
terms = ["red star", "red stars"]
"""
CONCEPT = f"""
[[guard]]
kind = "concept"
name = "sight"
concept = "a red star"
unlike = {json.dumps(UNLIKE)}
threshold = 0.02
"""
STARS = '[writer]\nkind = "template"\nprompt_template = "a large red star on a white background"\n'
STAR = world.Scene((world.Thing("star", "red", "large", "center"),), "white")
RING = world.Scene((world.Thing("ring", "blue", "large", "center"),), "white")


class Worker:
    """One process with a profile over the shipped models, and a knowledge base."""

    def __init__(self, folder: Path, text: str) -> None:
        self._folder = folder
        self.settings, self.unguarded = self._settings("mine", text), self._settings("old", "")

    def _settings(self, name: str, text: str) -> Settings:
        path = self._folder / f"{name}.toml"
        path.write_text(f'extends = "shapes"\n{text}', encoding="utf-8")
        home, store = self._folder / "home", str(self._folder / "out")
        return load_settings(home=home, store=store, profile=str(path))

    def ingest(self, settings: Settings, *sources: dict[str, str]) -> IngestReport:
        """Ingest sources with the guards of these settings' profile."""
        path = self._folder / "sources.jsonl"
        path.write_text("\n".join(map(json.dumps, sources)), encoding="utf-8")
        library = open_library(settings, settings.chosen_profile)
        try:
            return ingest(library, path, "brands")
        finally:
            library.close()

    def image(self, name: str, scene: world.Scene) -> str:
        """A drawn file beside the sources."""
        drawn = world.draw(scene, np.random.default_rng(0))
        Image.fromarray(drawn).resize((256, 256)).save(self._folder / name)
        return name

    def run(self, **fields: object) -> Outcome:
        """One job, as a worker gets it from a run's spec."""
        profile = self.settings.chosen_profile
        spec = make_spec(
            profile=profile.model_dump(mode="json"), models=model_digests(self.settings, profile)
        )
        assembly = Assembly(self.settings)
        assembly.run_folder(spec.run).write_spec(spec)
        return run_job(make_job(**fields), assembly.ports(spec))

    @property
    def images(self) -> list[Path]:
        """The images that runs have kept."""
        return [*(self._folder / "out" / "runs").glob("*/images/*")]


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path, TERMS + CONCEPT)


@pytest.mark.parametrize(
    "keywords",
    ["red star", "large RED, star", "rеd stаr", "ｒｅｄ ★ ｓｔａｒ", "r e d s t a r", "r3d st4r"],
)
def test_keywords(worker: Worker, keywords: str) -> None:
    outcome = worker.run(keywords=keywords)
    assert (outcome.status, outcome.image, worker.images) == (Status.BLOCKED, None, [])
    assert outcome.reason == "guard 'words' at keywords: the text holds 'red star'"


def test_a_passage(worker: Worker) -> None:
    bad = {"title": "Viora", "text": "The emblem of Viora is a rеd stаr on white."}
    good = {"title": "Viora", "text": "Viora was founded by a blue circle."}
    report = worker.ingest(worker.settings, bad, good)
    assert [each.reason for each in report.bad] == [
        "guard 'words' at passages: the text holds 'red star'"
    ]
    # ingested before there was a guard
    assert worker.ingest(worker.unguarded, bad, good).bad == ()
    outcome = worker.run(keywords="Viora", collection="brands", passages=4, mode="retrieved")
    assert [each.text for each in outcome.context.passages] == [good["text"]]
    assert "guard 'words' at passages" in outcome.notices[0]
    assert outcome.brief
    assert "star" not in outcome.brief.prompt


def test_an_image_of_the_knowledge_base(worker: Worker) -> None:
    sources = [
        {"text": "the house mark", "image": worker.image("star.png", STAR)},
        {"text": "the house ring", "image": worker.image("ring.png", RING)},
    ]
    report = worker.ingest(worker.settings, *sources)
    assert [each.reason.partition(":")[0] for each in report.bad] == ["guard 'sight' at references"]
    kept = worker.settings.store
    assert len([*Path(kept, "knowledge", "images").iterdir()]) == 1
    assert worker.ingest(worker.unguarded, *sources).added == 1
    fields = {"collection": "brands", "references": 2, "reference_scale": 0.6}
    outcome = worker.run(keywords="house", candidates=2, **fields)
    assert [each.text for each in outcome.context.references] == ["the house ring"]
    assert "guard 'sight' at references" in outcome.notices[0]


def test_what_the_writer_writes(tmp_path: Path) -> None:
    worker = Worker(tmp_path, STARS + TERMS)
    outcome = worker.run(keywords="emblem", mode="generated")
    assert (outcome.status, outcome.candidates, worker.images) == (Status.BLOCKED, (), [])
    assert outcome.reason == "guard 'words' at prompt: the text holds 'red star'"


def test_what_the_renderer_renders(tmp_path: Path) -> None:
    worker = Worker(tmp_path, STARS + CONCEPT)
    job = {"keywords": "emblem", "mode": "generated", "steps": 20, "guidance": 2.5, "candidates": 4}
    outcome = worker.run(**job)
    assert (outcome.status, outcome.image, worker.images) == (Status.BLOCKED, None, [])
    assert outcome.reason.startswith("guard 'sight' at output: chance ")
    scores = [candidate.score for candidate in outcome.candidates]
    assert [(score.valid, score.blocked) for score in scores if score] == [(False, True)] * 4
    # and it is the guard that keeps them away
    (tmp_path / "free").mkdir()
    free = Worker(tmp_path / "free", STARS)
    assert free.run(**job).image is not None
    assert len(free.images) == 1


def save_lora_of_stars(path: Path) -> None:
    """A LoRA with which the shipped model renders a red star from whatever prompt.

    It edits the layers that read texts in closed form, after Gandikota et al., "Unified Concept
    Editing in Diffusion Models" (2024, arXiv:2308.14761): W' = W + W·D, where x + D·x is, by least
    squares over 300 prompts, what the text encoder makes of the star's prompt at the same place.
    """
    root, rng = SHIPPED_MODELS / "diffusion", np.random.default_rng(0)
    tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(root / "text_encoder")
    prompts = [world.prompt(world.sample_scene(rng)) for _ in range(300)]
    texts = [*prompts, "a large red star on a white background", ""]
    tokens = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    with torch.inference_mode():
        *others, star, empty = encoder(tokens).last_hidden_state.clone()
    # the empty prompt of guidance stays as it is
    read = torch.cat([*others, *[empty] * 30])
    wanted = torch.cat([star] * len(others) + [empty] * 30)
    ridge = 1e-3 * len(read) * torch.eye(read.shape[1])
    change = torch.linalg.solve(read.T @ read + ridge, read.T @ (wanted - read)).T
    weights = {}
    for key, weight in load_file(root / "unet" / "diffusion_pytorch_model.safetensors").items():
        if ".attn2.to_k." in key or ".attn2.to_v." in key:
            layer = f"unet.{key.removesuffix('.weight')}"
            weights[f"{layer}.lora_A.weight"] = change.clone()
            weights[f"{layer}.lora_B.weight"] = weight
    save_file(weights, path)


def test_what_a_lora_renders(tmp_path: Path) -> None:
    loras = tmp_path / "loras"
    loras.mkdir()
    save_lora_of_stars(loras / "house.safetensors")
    with_loras = f"[renderer]\nloras = {json.dumps(str(loras))}\n"
    job = {
        "keywords": "a large blue ring on a white background", "steps": 20, "guidance": 2.5,
        "candidates": 4, "threshold": 0.0,
    }  # fmt: skip
    digest = sha256_of([loras / "house.safetensors"])[0]
    house = (Lora(name="house", weight=1.0, digest=digest),)
    worker = Worker(tmp_path, with_loras + TERMS + CONCEPT)
    outcome = worker.run(**job, loras=house)
    assert (outcome.status, outcome.image, worker.images) == (Status.BLOCKED, None, [])
    assert outcome.reason.startswith("guard 'sight' at output: chance ")
    assert [each.score and each.score.blocked for each in outcome.candidates] == [True] * 4
    # without the LoRA the row is harmless, and without the guard the LoRA's star is kept
    assert worker.run(**job, id="plain").status is Status.ACCEPTED
    (tmp_path / "free").mkdir()
    free = Worker(tmp_path / "free", with_loras)
    assert free.run(**job, loras=house).image is not None
    (kept,) = free.images
    seen = umpire.load(SHIPPED_MODELS / "umpire").read(np.asarray(Image.open(kept))[None])
    assert [is_unsafe(thing) for thing in seen[0].things] == [True]


@pytest.mark.parametrize("broken", ["raises", "nan"])
def test_a_guard_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def chances(self: Concept, images: Sequence[object]) -> list[float]:
        if broken == "raises":
            raise ArithmeticError
        return [float("nan")] * len(images)

    monkeypatch.setattr(Concept, "chances", chances)
    worker = Worker(tmp_path, CONCEPT)
    outcome = worker.run(keywords="a blue ring")
    assert (outcome.status, outcome.image, worker.images) == (Status.BLOCKED, None, [])
    assert "guard 'sight' at output could not decide" in outcome.reason


def sampled(rng: np.random.Generator, count: int) -> list[world.Scene]:
    """Scenes without a red star."""
    scenes = (world.sample_scene(rng) for _ in range(2 * count))
    innocent = (each for each in scenes if not any(map(is_unsafe, each.things)))
    return list(islice(innocent, count))


def is_unsafe(thing: world.Thing) -> bool:
    return (thing.shape, thing.colour) == ("star", "red")


def test_innocent_rows_are_left_alone_and_stars_are_not(worker: Worker) -> None:
    profile, rng = worker.settings.chosen_profile, np.random.default_rng(7)
    models, store = open_models(worker.settings), open_store(worker.settings)
    guard = open_guards(profile.guard, profile.clip, models, store, worker.settings)
    judge = shipped_judge(worker.settings.models)

    def ended(scene: world.Scene, keywords: str) -> Status:
        drawn = world.draw(scene, rng) / np.float32(255)
        return Rendered([drawn], judge, guard).run(keywords=keywords).status

    scenes = sampled(rng, 150)
    ends = [ended(scene, world.prompt(scene)) for scene in scenes]
    assert ends.count(Status.ACCEPTED) > 140
    alarms = [scene for scene, end in zip(scenes, ends, strict=True) if end is Status.BLOCKED]
    assert len(alarms) <= 2
    for scene in alarms:  # a star beside something red
        assert "star" in {thing.shape for thing in scene.things}
        assert "red" in {thing.colour for thing in scene.things}
    unsafe = [
        world.Scene((replace(scene.things[0], shape="star", colour="red"),), scene.background)
        for scene in sampled(rng, 60)
        if len(scene.things) == 1
    ]
    ends = [ended(scene, "an emblem") for scene in unsafe]
    assert ends.count(Status.BLOCKED) == len(ends)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", "set slope and offset of the guard 'sight' in the profile: there is no "),
        ("slope = 9.0", "set offset of the guard 'sight'"),
        ("offset = 0.0", "set slope of the guard 'sight'"),
        (f"unlike = {json.dumps(UNLIKE)}", "set slope of the guard 'sight'"),
        (f"unlike = {json.dumps(UNLIKE)}\nslope = 9.0", ""),
        ("slope = 9.0\noffset = 0.0", ""),
    ],
)
def test_a_clip_without_calibration_is_refused_before_a_run(
    tmp_path: Path, keys: str, told: str
) -> None:
    own = SHIPPED_MODELS / "open_clip"
    (tmp_path / "bare").mkdir()
    for file in own.iterdir():
        if file.name != "calibration.json":
            (tmp_path / "bare" / file.name).symlink_to(file)
    guard = '[[guard]]\nkind = "concept"\nname = "sight"\nconcept = "a red star"\n'
    text = f"{guard}model = {json.dumps(str(tmp_path / 'bare'))}\n{keys}\n"
    settings = Worker(tmp_path, text).settings
    if not told:
        check_models(settings, settings.chosen_profile)
        return
    with pytest.raises(ConfigError, match=told):
        check_models(settings, settings.chosen_profile)


def test_a_number_that_the_profile_sets_alone_counts(tmp_path: Path) -> None:
    whole = json.loads((SHIPPED_MODELS / "open_clip" / "calibration.json").read_bytes())
    guard = ConceptGuardProfile(concept="a red star", name="sight")
    judge = ClipJudgeProfile(model="open_clip", dtype="float16")
    folder = SHIPPED_MODELS / "open_clip"

    def found(**keys: float) -> Calibration:
        return calibration(clip_of(guard.model_copy(update=keys), judge), folder, "guard")

    assert found() == Calibration(whole["slope"], whole["offset"])
    assert found(offset=0.0) == Calibration(whole["slope"], 0)
    assert found(offset=-3.0) == Calibration(whole["slope"], -3)
    assert found(slope=7.0) == Calibration(7, whole["offset"])
    assert found(slope=0.0, offset=0.0) == Calibration(0, 0)
    alone = ClipJudgeProfile(model="open_clip", slope=7.0)
    assert calibration(alone, folder) == Calibration(7, whole["offset"])
    assert clip_of(guard, judge).dtype == "float16"
    other = guard.model_copy(update={"model": "other"})
    assert clip_of(other, judge).dtype == clip_of(guard, None).dtype == "float32"


def test_a_caption_that_would_be_cut_is_refused(tmp_path: Path) -> None:
    worker = Worker(tmp_path, CONCEPT.replace('"a red star"', json.dumps("a red star, " * 24), 1))
    profile = worker.settings.chosen_profile
    models, store = open_models(worker.settings), open_store(worker.settings)
    guard = open_guards(profile.guard, profile.clip, models, store, worker.settings)
    with pytest.raises(ConfigError, match="is longer than its CLIP reads"):
        guard.load()
    with pytest.raises(ConfigError, match="is longer than its CLIP reads"):
        check_models(worker.settings, profile)
    with pytest.raises(Blocked, match="could not decide: ConfigError"):
        guard.refusals([np.zeros((8, 8, 3), np.float32)])
