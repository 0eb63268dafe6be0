"""No code of a model folder is run, and no pickle of one is loaded, in any role."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import OfflineModeIsEnabled
from open_clip.factory import _find_checkpoint_in_dir
from safetensors.torch import load_file, save_file

from pipeline.errors import ModelError
from pipeline.models import Models, loading, verify
from pipeline.models.code import refuse_code
from pipeline.models.contents import OPEN_CLIP, open_clip_weights
from pipeline.profile import Profile

ROLES = {
    "judge": "open_clip",
    "image_encoder": "open_clip",
    "writer": "writer",
    "embedding": "writer",
    "renderer": "diffusion",
    "unet": "draft-unet",
    "image_adapter": "image-adapter",
    "control": "control-edges",
}


@pytest.fixture
def root(tmp_path: Path, models_root: Path) -> Path:
    """A copy of the shipped models."""
    for name in set(ROLES.values()):
        shutil.copytree(models_root / name, tmp_path / "models" / name)
    return tmp_path / "models"


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file; one that is not there is made."""
    value = json.loads(path.read_text()) if path.is_file() else {}
    change(value)
    path.write_text(json.dumps(value))


def load(root: Path, role: str) -> object:
    """Load the model of a role, as a run does."""
    models, name = Models(root, "cpu"), ROLES[role]
    profile = Profile.load("shapes")
    if role in ("judge", "image_encoder"):
        return models.clip(name, role)
    if role == "writer":
        return models.language_model(profile.writer)
    return models.text_encoder(name)


def code(target: Path, base: str, name: str) -> str:
    """A module that leaves a mark when it is imported."""
    return (
        f"open({str(target)!r}, 'w')\nfrom transformers import {base}\nclass {name}({base}): ...\n"
    )


def evil_tokenizer(folder: Path, mark: Path, repository: str = "") -> None:
    """OpenCLIP's tokenizer settings let transformers run what `auto_map` names."""
    edit(
        folder / "open_clip_config.json",
        lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"trust_remote_code": True}),
    )
    named = f"{repository}tok.EvilTok"
    edit(
        folder / "tokenizer_config.json",
        lambda c: c.update(tokenizer_class="EvilTok", auto_map={"AutoTokenizer": [named, named]}),
    )
    if not repository:
        (folder / "tok.py").write_text(code(mark, "PreTrainedTokenizerFast", "EvilTok"))


def evil_model(folder: Path, mark: Path) -> None:
    """A configuration that names classes of the folder."""
    names = {"AutoConfig": "conf.EvilConfig", "AutoModelForCausalLM": "conf.EvilConfig"}
    edit(folder / "config.json", lambda c: c.update(auto_map=names, model_type="evil"))
    (folder / "conf.py").write_text(code(mark, "LlamaConfig", "EvilConfig"))


def evil_hub(home: Path, mark: Path) -> None:
    """A repository of code in the hub's cache, as a download leaves it."""
    cache, revision = home / "models--evil--repo", "0" * 40
    (cache / "snapshots" / revision).mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(revision)
    module = cache / "snapshots" / revision / "tok.py"
    module.write_text(code(mark, "PreTrainedTokenizerFast", "EvilTok"))


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("role", ["judge", "image_encoder", "writer", "embedding", "hub"])
def test_code_of_a_folder_is_not_run(
    role: str, checked: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the check, nor where the libraries are left to themselves after it."""
    mark = tmp_path / "ran"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if role == "hub":
        role = "judge"
        evil_hub(tmp_path / "hub", mark)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        evil_tokenizer(root / "open_clip", mark, "evil/repo--")
    elif ROLES[role] == "open_clip":
        evil_tokenizer(root / "open_clip", mark)
    else:
        evil_model(root / "writer", mark)
    if checked:
        with pytest.raises(ModelError, match="code"):
            verify(root / ROLES[role], role)
    else:
        monkeypatch.setattr("pipeline.models.contents.refuse_code", lambda folder: None)
    with pytest.raises(ModelError):
        load(root, role)
    assert not mark.exists()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("place", ["", "extra", "tokenizer"])
def test_no_folder_brings_code(role: str, place: str, root: Path) -> None:
    folder = root / ROLES[role]
    verify(folder, role)
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "helper.py").write_text("")
    with pytest.raises(ModelError, match=r"helper\.py is code"):
        verify(folder, role)
    (folder / place / "helper.py").unlink()
    edit(folder / place / "processor_config.json", lambda c: c.update(a=[{"auto_map": {"A": "b"}}]))
    with pytest.raises(ModelError, match="'auto_map'"):
        verify(folder, role)


@pytest.mark.parametrize("escaped", ["auto_map", "auto\\u005fmap"])
def test_an_entry_is_found_however_it_is_written(escaped: str, root: Path) -> None:
    (root / "writer" / "generation_config.json").write_text(f'{{"{escaped}": {{"A": "b"}}}}')
    with pytest.raises(ModelError, match="'auto_map'"):
        verify(root / "writer", "writer")


def test_harmless_files_are_none_of_ours(root: Path) -> None:
    folder = root / "writer"
    (folder / "modules.json").write_text("[1]")
    (folder / "notes.json").write_text("not JSON")
    (folder / "vocab.json").write_text('{"auto_map": 1, "trust_remote_code": 2}')
    (folder / ".git").mkdir()
    (folder / ".git" / "hook.py").write_text("")
    for name in ("README.md", "model.onnx", "flax_model.msgpack", "pytorch_model.bin", "a.pth"):
        (folder / name).write_bytes(b"")
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.00.pth").write_bytes(b"")
    verify(folder, "writer")


@pytest.mark.parametrize(
    ("tower", "entry", "why"),
    [
        ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize"}}, ""),
        ("text_cfg", {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}, ""),
        ("text_cfg", {"tokenizer_kwargs": {"use_fast": 1}}, "unknown tokenizer_kwargs: use_fast"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "'roberta-base' from the hub"),
        ("vision_cfg", {"timm_model_name": "hf-hub:evil/repo"}, "from elsewhere"),
        ("vision_cfg", {"timm_model_name": "../evil"}, "from elsewhere"),
    ],
)
def test_a_judge_names_nothing_of_the_hub(
    tower: str, entry: dict[str, Any], why: str, root: Path
) -> None:
    folder = root / "open_clip"
    edit(folder / "open_clip_config.json", lambda c: c["model_cfg"][tower].update(entry))
    with pytest.raises(ModelError, match=why) if why else nullcontext():
        refuse_code(folder)


def test_a_judge_that_names_a_tokenizer_of_transformers_holds_it(root: Path) -> None:
    folder = root / "open_clip"
    text = {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}
    edit(folder / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(text))
    if (folder / "tokenizer.json").exists():
        verify(folder, "judge")
        (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json nor another vocabulary; fetch"):
        verify(folder, "judge")


class Bomb:
    """Runs a call when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._mark),)


@pytest.mark.parametrize("kind", ["bin", "bomb", "renamed"])
def test_a_pickle_beside_a_decoy_is_refused(kind: str, root: Path, tmp_path: Path) -> None:
    folder, mark = root / "open_clip", tmp_path / "ran"
    weights = folder / "open_clip_model.safetensors"
    state = {name: value * 0 + 0.001 for name, value in load_file(weights).items()}
    weights.unlink()
    save_file({"x": torch.zeros(1)}, folder / "decoy.safetensors")
    match kind:
        case "bin":
            torch.save(state, folder / "open_clip_pytorch_model.bin")
        case "bomb":
            bomb = pickle.dumps({"state_dict": Bomb(mark)})
            (folder / "open_clip_pytorch_model.bin").write_bytes(bomb)
        case _:
            weights.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ModelError, match=r"is a pickle|truncated or malformed"):
        verify(folder, "judge")
    with pytest.raises(ModelError):
        load(root, "judge")
    assert not mark.exists()


@pytest.mark.parametrize("there", [*combinations((*OPEN_CLIP[1:], "a.safetensors", "b.bin"), 2)])
def test_the_weights_that_openclip_takes_are_the_ones_looked_at(
    there: tuple[str, str], tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).write_bytes(b"")
    taken = Path(str(_find_checkpoint_in_dir(tmp_path)))
    if taken.suffix == ".safetensors":
        assert open_clip_weights(tmp_path) == taken
    else:
        with pytest.raises(ModelError, match=f"{taken.name} is a pickle"):
            open_clip_weights(tmp_path)


def test_an_adapter_that_names_another_model_is_refused(root: Path) -> None:
    edit(root / "writer" / "adapter_config.json", lambda c: c.update(base_model_name_or_path="x"))
    with pytest.raises(ModelError, match="is of an adapter"):
        verify(root / "writer", "writer")


def test_nothing_is_asked_of_the_hub_while_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match=OfflineModeIsEnabled.__name__):
        loading._loading(tmp_path, lambda: HfApi().model_info("org/name"))
    assert constants.HF_HUB_OFFLINE is False
