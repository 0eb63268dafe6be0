"""Models are loaded once, from local safetensors, on the device asked for."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.models import Models, digest
from pipeline.profile import DiffusersProfile, Profile
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
    model, _, _ = models.clip(profile.judge.model, "judge")
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token is not None
    assert not model.training
