"""Models are loaded once, from local safetensors, on the device asked for."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from pipeline.errors import ModelError
from pipeline.job import RenderRequest
from pipeline.models import Models, digest, verify
from pipeline.profile import DiffusersProfile, LocalWriterProfile, Profile
from pipeline.rendering.local import local_renderer
from pipeline.telemetry import metered
from tests.harness import small_models


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random pipeline, and a UNet of its shape."""
    folder = tmp_path_factory.mktemp("models")
    small_models.save("sd", folder / "diffusion")
    shutil.copytree(folder / "diffusion" / "unet", folder / "draft-unet")
    return folder


def test_threads_share_one_model(root: Path) -> None:
    models = Models(root, "cpu")
    profile = DiffusersProfile(model="diffusion")
    with ThreadPoolExecutor(4) as pool:
        pipes = list(pool.map(models.diffusion, [profile] * 4))
    assert len({id(pipe) for pipe in pipes}) == 1
    assert models.digest("diffusion", "renderer") == digest(root / "diffusion", "renderer")


def test_a_model_is_loaded_while_no_other_one_runs(
    root: Path, models_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, models = small_models.shipped(models_root), Models(root, "cpu")
    small_models.save_controlnet(small_models.made("sd"), root / "edges")
    small_models.save_preview_decoder("sd", root / "tiny")
    alone, change = list[bool](), torch.set_default_dtype

    def changed(dtype: torch.dtype) -> None:
        alone.append(bool(shipped.device_lock._waiting or models.device_lock._waiting))
        change(dtype)

    monkeypatch.setattr(torch, "set_default_dtype", changed)
    profile = DiffusersProfile(model="diffusion", previews="tiny")
    for load in (
        lambda: models.diffusion(profile),
        lambda: models.preview_decoder(profile),
        lambda: models.controlnet("edges", profile),
        lambda: shipped.language_model(Profile.load("shapes").writer),
    ):
        before = len(alone)
        model = load()
        assert alone[before:]
        with models.device_lock, shipped.device_lock:
            assert load() is model, "a thread that runs a model cannot use another one"
    assert all(alone)


def test_unet_scheduler_and_precision_are_the_profiles(root: Path) -> None:
    profile = DiffusersProfile(
        model="diffusion",
        unet="draft-unet",
        scheduler="EulerDiscreteScheduler",
        dtype="bfloat16",
    )
    models = Models(root, "cpu")
    pipe = models.diffusion(profile)
    assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
    assert {pipe.unet.dtype, pipe.vae.dtype} == {torch.bfloat16}


@pytest.mark.parametrize("scheduler", ["NoSuchScheduler", "StableDiffusionPipeline", "__name__"])
def test_a_scheduler_must_be_one(root: Path, scheduler: str) -> None:
    profile = DiffusersProfile(model="diffusion", scheduler=scheduler)
    with pytest.raises(ModelError, match="no scheduler"):
        Models(root, "cpu").diffusion(profile)


def test_what_a_library_cannot_load_names_the_folder(root: Path) -> None:
    shutil.copytree(root / "diffusion", root / "torn")
    (root / "torn" / "unet" / "config.json").write_text('{"block_out_channels": 3}')
    profile = DiffusersProfile(model="torn")
    with pytest.raises(ModelError, match="torn cannot be loaded"):
        Models(root, "cpu").diffusion(profile)


GAPS: dict[str, tuple[str, Callable[[Models], object]]] = {
    "text_encoder": ("diffusion", lambda held: held.diffusion(DiffusersProfile(model="diffusion"))),
    "unet": ("diffusion", lambda held: held.diffusion(DiffusersProfile(model="diffusion"))),
    "other unet": (
        "draft-unet",
        lambda held: held.diffusion(DiffusersProfile(model="diffusion", unet="draft-unet")),
    ),
    "previews": (
        "tiny",
        lambda held: held.preview_decoder(DiffusersProfile(model="diffusion", previews="tiny")),
    ),
    "writer": ("writer", lambda held: held.language_model(LocalWriterProfile(model="writer"))),
    "embedding": ("writer", lambda held: held.text_encoder("writer")),
    "judge": ("clip", lambda held: held.clip("clip", "judge")),
    "open_clip": ("open_clip", lambda held: held.clip("open_clip", "judge")),
}


@pytest.mark.parametrize("kind", GAPS)
def test_a_model_that_lacks_a_weight_is_refused_by_name(
    kind: str, root: Path, tmp_path: Path
) -> None:
    """In its place transformers would put random numbers."""
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    small_models.save_preview_decoder("sd", tmp_path / "tiny")
    small_models.save_writer(tmp_path / "writer")
    small_models.save_towers("clip", tmp_path / "clip")
    small_models.save_judge(tmp_path / "open_clip")
    name, load = GAPS[kind]
    folder = tmp_path / name / (kind if name == "diffusion" else "")
    assert load(Models(tmp_path, "cpu"))
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    gone = next(key for key in weights if "mlp" in key or "mid_block" in key or "decoder" in key)
    save_file({key: value for key, value in weights.items() if key != gone}, file, {"format": "pt"})
    with pytest.raises(ModelError) as refused:
        load(Models(tmp_path, "cpu"))
    assert gone.removeprefix("model.").removeprefix("text_model.") in str(refused.value)


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    small_models.save_writer(tmp_path / "writer")
    file = tmp_path / "writer" / "model.safetensors"
    key = "model.layers.0.mlp.down_proj.weight"
    save_file(load_file(file) | {key: torch.zeros(3, 3)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"other shapes than its config\.json says: {key}"):
        Models(tmp_path, "cpu").language_model(LocalWriterProfile(model="writer"))


def test_a_text_encoder_may_lack_what_no_embedding_is_made_of(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "b")
    small_models.made("sd").tokenizer.save_pretrained(tmp_path / "b")
    model, _ = Models(tmp_path, "cpu").text_encoder("b")
    assert model.pooler is not None


def test_a_file_without_an_ending_beside_a_variant_does_no_harm(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "half", "fp16")
    (tmp_path / "half" / "unet" / "LICENSE").touch()
    verify(tmp_path / "half", "renderer", "fp16")
    assert Models(tmp_path, "cpu").diffusion(DiffusersProfile(model="half", variant="fp16"))


def test_auto_takes_the_best_device_there_is(tmp_path: Path) -> None:
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    assert Models(tmp_path).device == next(device for device in there if there[device])
    assert Models(tmp_path, "cuda:1").device == "cuda:1"


def test_the_shipped_models_load(models_root: Path) -> None:
    models = small_models.shipped(models_root)
    profile = Profile.load("shapes")
    _, tokenizer = models.language_model(profile.writer)
    model, _, _ = models.clip(profile.judge[0].model, "judge")
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token is not None
    assert not model.training


REQUEST = RenderRequest(
    prompt="a circle", negative="", width=32, height=32, steps=2, guidance=2, seeds=(7,)
)


def test_a_missing_variant_is_loaded_as_it_is_there_and_the_record_says_so(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "half", "fp16")
    small_models.save("sd", tmp_path / "plain")
    models = Models(tmp_path, "cpu")
    asked = {"half": "", "plain": "fp16"}
    profiles = [DiffusersProfile(model=name, variant=tag) for name, tag in asked.items()]
    first, second = (models.diffusion(profile).unet.state_dict() for profile in profiles)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert models.nbytes(profiles[0]) == models.nbytes(profiles[1])
    with closing(local_renderer(models, profiles[1])) as renderer, metered() as meter:
        renderer.render(REQUEST)
    assert 'plain has no variant "fp16": its plain files are loaded' in meter.notices


@pytest.mark.parametrize("name", ["", "pytorch_model.bin"])
def test_a_t5_without_its_weights_is_refused_and_may_be_removed(name: str, tmp_path: Path) -> None:
    small_models.save("sd3", tmp_path / "sd3")
    weights = tmp_path / "sd3" / "text_encoder_3" / "model.safetensors"
    if name:
        weights.with_name(name).touch()
    weights.unlink()
    with pytest.raises(ModelError, match=r"fetch .*; without \S+/text_encoder_3 the model renders"):
        verify(tmp_path / "sd3", "renderer")


@pytest.mark.parametrize("kind", ["missing", "null"])
def test_stable_diffusion_3_is_loaded_without_its_t5(kind: str, tmp_path: Path) -> None:
    small_models.save("sd3", tmp_path / "sd3")
    index = tmp_path / "sd3" / "model_index.json"
    parts = [index.with_name(name) for name in ("text_encoder_3", "tokenizer_3")]
    for part in parts:
        shutil.rmtree(part)
    if kind == "null":
        left = {part.name: [None, None] for part in parts}
        index.write_text(json.dumps(json.loads(index.read_text()) | left))
    verify(index.parent, "renderer")
    models, profile = Models(tmp_path, "cpu"), DiffusersProfile(model="sd3")
    assert models.diffusion(profile).text_encoder_3 is None
    with closing(local_renderer(models, profile)) as renderer, metered() as meter:
        (image,) = renderer.render(REQUEST)
    assert image is not None
    assert np.isfinite(image).all()
    assert meter.renderer == "engine"
    assert "sd3 is loaded without its T5 encoder, which is missing" in meter.notices
