"""The wrapper of CLIP models against OpenCLIP itself, with a shipped model, and transformers."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, GemmaTokenizer

from pipeline.errors import ModelError
from pipeline.judging.clip import ClipJudge
from pipeline.media.image import to_image
from pipeline.models import Models, digest, verify
from pipeline.models.clip import Clip
from pipeline.models.transformers_clip import Tokenizer
from pipeline.profile import ClipJudgeProfile, Profile
from tests.harness import small_models
from tests.harness.jobs import request_of

TEXTS = ["a red circle", "a blue star on a black background", "teal"]
IMAGES = [np.random.default_rng(n).random((64, 64, 3), np.float32) for n in range(5)]
MODEL = Profile.load("shapes").judge[0].model


@pytest.fixture(scope="module")
def models(models_root: Path) -> Models:
    return small_models.shipped(models_root)


@pytest.fixture(scope="module")
def clip(models: Models) -> Clip:
    return Clip(models, MODEL, "judge", batch=2)


def test_both_towers_give_what_open_clip_gives(clip: Clip, models: Models) -> None:
    model, preprocess, tokenizer = models.clip(MODEL, "judge")
    with torch.inference_mode():
        texts = model.encode_text(tokenizer(TEXTS)).numpy()
        images = model.encode_image(torch.stack([preprocess(to_image(i)) for i in IMAGES])).numpy()
    assert np.abs(clip.encode_texts(TEXTS) - texts).max() < 1e-4
    assert np.abs(clip.encode_images(IMAGES) - images).max() < 1e-4
    both = clip.encode(TEXTS, IMAGES)
    assert np.abs(both[0] - texts).max() < 1e-4
    assert np.abs(both[1] - images).max() < 1e-4


def test_pixels_are_floats_while_another_model_is_loaded(clip: Clip) -> None:
    preprocess = clip._loaded[1]
    torch.set_default_dtype(torch.bfloat16)
    try:
        seen = [preprocess(to_image(image)) for image in IMAGES]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {each.dtype for each in seen} == {torch.float32}


def test_every_thread_gets_its_own(clip: Clip) -> None:
    calls = [(TEXTS[n % 3 :], IMAGES[n % 5 :]) for n in range(20)]
    alone = [clip.encode(*call) for call in calls]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda call: clip.encode(*call), calls))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one[0] - other[0]).max() < 1e-4
        assert np.abs(one[1] - other[1]).max() < 1e-4


def test_nothing_gives_nothing(clip: Clip) -> None:
    assert clip.encode_texts([]).shape == (0, clip.size)
    assert clip.encode_images([]).shape == (0, clip.size)


def test_a_text_is_read_whole_up_to_the_models_context(clip: Clip, models: Models) -> None:
    room = models.clip(MODEL, "judge")[2].context_length
    # each "a" is one token, between the two that begin and end a text
    assert clip.reads_whole("a " * (room - 2))
    assert not clip.reads_whole("a " * (room - 1))
    assert not clip.reads_whole("a " * (3 * room))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_folder_of_transformers_judges_as_transformers_does(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    small_models.save_towers(kind, folder)
    verify(folder, "judge")
    (folder / "calibration.json").write_text('{"slope": 3, "offset": -1}')
    models = Models(tmp_path, "cpu")
    judge = ClipJudge(models, ClipJudgeProfile(model=kind))
    scores = judge.score(IMAGES, request_of(TEXTS[1]))
    model, tokenizer = (each.from_pretrained(folder) for each in (AutoModel, AutoTokenizer))
    given = AutoImageProcessor.from_pretrained(folder, backend="pil")(
        images=[to_image(image) for image in IMAGES], return_tensors="pt"
    )
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(TEXTS[1], padding="max_length", max_length=length, return_tensors="pt")
    with torch.inference_mode():
        seen = model.eval()(input_ids=tokens["input_ids"], **given)
    wanted = cosine_similarity(seen.image_embeds, seen.text_embeds).numpy()
    raw = np.array([score.raw for score in scores])
    assert np.abs(raw - wanted).max() < 1e-4
    assert len({*raw}) == len(IMAGES)
    chances = 1 / (1 + np.exp(1 - 3 * raw))
    assert np.abs(chances - [score.calibrated for score in scores]).max() < 1e-6
    clip = Clip(models, kind, "judge")
    assert clip.encode_texts(TEXTS).shape == (3, clip.size)
    assert clip.reads_whole("a " * (length - 2))
    assert not clip.reads_whole("a " * (length - 1))
    assert judge.score(IMAGES[:1], request_of("a red circle. " * 99))[0].valid


def test_what_a_folder_of_transformers_lacks_is_told(tmp_path: Path) -> None:
    small_models.save_towers("clip", tmp_path / "clip")
    whole = digest(tmp_path / "clip", "judge")
    for name in ("model.safetensors", "preprocessor_config.json", "tokenizer.json"):
        file = tmp_path / "clip" / name
        file.rename(tmp_path / name)
        with pytest.raises(ModelError, match=name.partition(".")[0]):
            verify(tmp_path / "clip", "judge")
        (tmp_path / name).rename(file)
    assert digest(tmp_path / "clip", "judge") == whole
    config = tmp_path / "clip" / "config.json"
    held = json.loads(config.read_text())
    for kind, said in {
        "siglip2": "NaFlex.*siglip2-base",
        "bert": "neither CLIP nor SigLIP",
    }.items():
        config.write_text(json.dumps(held | {"model_type": kind}))
        with pytest.raises(ModelError, match=said):
            verify(tmp_path / "clip", "judge")


def test_texts_of_transformers_are_read_in_small_letters() -> None:
    vocab = {"a": 0, "▁": 1, "<pad>": 2, "<unk>": 3, "<eos>": 4, "<bos>": 5}
    gemma = GemmaTokenizer(vocab=vocab, merges=[], unk_token="<unk>")
    assert gemma("A")["input_ids"] != gemma("a")["input_ids"]
    tokenizer = Tokenizer(gemma, 6)
    assert torch.equal(tokenizer(["A a"]), tokenizer(["a a"]))
    assert tokenizer(["a"]).shape == (1, 6)
