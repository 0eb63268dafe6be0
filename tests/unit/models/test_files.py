"""Model folders are found and checked without torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from httpx2 import ReadTimeout, RemoteProtocolError
from safetensors.numpy import save_file

from pipeline.assemble.models import check_models
from pipeline.errors import ModelError
from pipeline.models import digest, remarks, resolve, role_folders, verify
from pipeline.models.contents import loaded_files
from pipeline.models.files import local_model
from pipeline.profile import (
    A1111Profile,
    CollectionProfile,
    EndpointWriterProfile,
    Profile,
    QdrantProfile,
)
from pipeline.settings import load_settings

WEIGHTS = "diffusion_pytorch_model"


def write_weights(path: Path) -> None:
    save_file({"a": np.ones((4, 4), np.float32), "b": np.zeros(3, np.float16)}, path)


@pytest.fixture
def writer(tmp_path: Path) -> Path:
    """A whole model of one part."""
    folder = tmp_path / "writer"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    write_weights(folder / "model.safetensors")
    return folder


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A whole model of several parts, without the safety checker that its index names."""
    folder = tmp_path / "diffusion"
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    for part in ("unet", "vae", "text_encoder"):
        (folder / part / "config.json").write_text("{}")
        stem = "model" if part == "text_encoder" else WEIGHTS
        write_weights(folder / part / f"{stem}.safetensors")
    return folder


def test_a_complete_model_is_accepted(writer: Path, pipeline: Path) -> None:
    verify(writer, "writer")
    verify(pipeline, "renderer")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("WanPipeline", "makes videos: take a text-to-image model"),
        ("QwenImageEditPipeline", "needs an input image: take a text-to-image model"),
        ("IFSuperResolutionPipeline", "needs an input image"),
        ("StableDiffusionUpscalePipeline", "needs an input image"),
        ("StableDiffusionXLImg2ImgPipeline", "image: let it name StableDiffusionXLPipeline if the"),
        ("FluxControlNetPipeline", r"belong into renderer\.controls: let it name FluxPipeline if"),
        ("StableDiffusionPAGPipeline", "guides by perturbed attention, for which"),
        ("KandinskyV22Pipeline", "takes no prompt"),
        ("StableCascadePriorPipeline", "makes no images"),
        ("WuerstchenCombinedPipeline", "is no longer maintained by diffusers"),
        ("Flux3ModularPipeline", r"is a modular pipeline: take .* with a model_index\.json"),
        ("Flux9Pipeline", r"is unknown to diffusers [\d.]+: install a newer one"),
    ],
)
def test_a_pipeline_that_renders_no_row_is_refused_with_a_remedy(
    pipeline: Path, kind: str, why: str
) -> None:
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(ModelError, match=rf"model_index\.json names {kind}, which .*{why}"):
        verify(pipeline, "renderer")


def test_a_folder_of_a_modular_pipeline_is_refused_with_a_remedy(pipeline: Path) -> None:
    (pipeline / "model_index.json").rename(pipeline / "modular_model_index.json")
    with pytest.raises(ModelError, match=r"is a modular pipeline: take .* a model_index\.json"):
        verify(pipeline, "renderer")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere is missing"):
        verify(tmp_path / "nowhere", "writer")


def test_a_folder_of_another_kind_is_refused(writer: Path) -> None:
    with pytest.raises(ModelError, match=r"has no open_clip_config\.json"):
        verify(writer, "judge")


def test_a_pickle_is_no_model(pipeline: Path) -> None:
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.bin is a pickle"):
        verify(pipeline, "renderer")


@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_a_missing_part_is_named(pipeline: Path, part: str) -> None:
    (pipeline / part).rename(pipeline / "elsewhere")
    with pytest.raises(ModelError, match=f"{part} is missing"):
        verify(pipeline, "renderer")


def test_a_part_without_its_configuration_is_refused(pipeline: Path) -> None:
    (pipeline / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"unet/config\.json is missing"):
        verify(pipeline, "renderer")


def test_a_configuration_that_is_not_json_is_refused(writer: Path) -> None:
    (writer / "config.json").write_text("<html>404</html>")
    with pytest.raises(ModelError, match=r"config\.json is not JSON"):
        verify(writer, "writer")


@pytest.mark.parametrize("kept", [0, 4, 9, 100, -1])
def test_a_truncated_file_is_refused(writer: Path, kept: int) -> None:
    path = writer / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated or malformed"):
        verify(writer, "writer")


def test_a_file_with_more_than_its_tensors_is_refused(writer: Path) -> None:
    path = writer / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"polyglot")
    with pytest.raises(ModelError, match="its header lists 70"):
        verify(writer, "writer")


def spans(*offsets: list[int]) -> bytes:
    entries = {str(n): {"shape": [4], "data_offsets": each} for n, each in enumerate(offsets)}
    return json.dumps(entries).encode()


def many(count: int) -> dict[str, object]:
    return {str(n): {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"[1]", "malformed"),
        (b"{'a': 1}", "malformed"),
        (b'{"a": {"data_offsets": [0]}}', "malformed"),
        (b'{"a": {"data_offsets": [0, 1e999]}}', "malformed"),
        (b'{"a": {"data_offsets": [0, NaN]}}', "malformed"),
        (b'{"a": ' * 5000, "malformed"),
        (spans([0, 4], [2, 6]), "overlap"),
        (spans([0, 4], [5, 6]), "gaps"),
        (spans([-2, 6]), "gaps"),
        (spans([0, 8], [8, 6]), "overlap"),
        (json.dumps(many(20_001)).encode(), "20001 tensors"),
    ],
)
def test_a_malformed_header_is_refused(writer: Path, header: bytes, why: str) -> None:
    length = len(header).to_bytes(8, "little")
    (writer / "model.safetensors").write_bytes(length + header + bytes(6))
    with pytest.raises(ModelError, match=f"model.safetensors is truncated or malformed.*{why}"):
        verify(writer, "writer")


def test_a_header_that_claims_to_be_huge_is_not_read(writer: Path) -> None:
    length = (1 << 40).to_bytes(8, "little")
    (writer / "model.safetensors").write_bytes(length + b"{}" * 100)
    with pytest.raises(ModelError, match="does not fit"):
        verify(writer, "writer")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_git_lfs_has_not_fetched_is_called_so(writer: Path, name: str) -> None:
    (writer / name).write_bytes(POINTER)
    with pytest.raises(ModelError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        verify(writer, "writer")


def test_every_shard_of_an_index_must_be_there(writer: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (writer / "model.safetensors").rename(writer / shards[0])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (writer / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        verify(writer, "writer")
    write_weights(writer / shards[1])
    verify(writer, "writer")


def test_the_index_of_a_variant_that_was_not_fetched_is_no_fault(writer: Path) -> None:
    index = {"weight_map": {"a": "model.fp16-00001-of-00001.safetensors"}}
    (writer / "model.safetensors.index.fp16.json").write_text(json.dumps(index))
    verify(writer, "writer")


def test_a_digest_follows_what_the_model_computes_with(writer: Path) -> None:
    first = digest(writer, "writer")
    (writer / "README.md").write_text("about")
    (writer / ".cache").mkdir()
    (writer / ".cache" / "lock.json").write_text("{}")
    assert digest(writer, "writer") == first
    (writer / "tokenizer.json").write_text("{ }")
    second = digest(writer, "writer")
    (writer / "tokenizer.json").rename(writer / "vocab.txt")
    assert len({first, second, digest(writer, "writer")}) == 3


def test_a_reference_is_found_below_the_root_or_by_path(writer: Path, tmp_path: Path) -> None:
    assert resolve("writer", tmp_path, "writer") == writer
    assert resolve(str(writer), tmp_path / "elsewhere", "writer") == writer


@pytest.mark.parametrize("reference", ["", "nothing", "../up/here", "/no/where", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(reference: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        resolve(reference, tmp_path, "writer")


def test_what_cannot_be_fetched_is_explained_with_a_command(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve("org/name@abc123", tmp_path, "judge")
    wanted = f"--local-dir {tmp_path}/org/name@abc123"
    assert "hf download org/name --revision abc123" in str(caught.value)
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RemoteProtocolError("peer closed"), r"the hub did not give it \(peer closed\)"),
        (ReadTimeout(""), r"the hub did not give it \(ReadTimeout\)"),
        (PermissionError(13, "Permission denied"), "HF_HOME"),
    ],
)
def test_a_download_that_breaks_off_is_explained(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", break_off)
    with pytest.raises(ModelError, match=told):
        resolve("org/name", tmp_path, "judge")


def test_the_roles_of_a_profile_are_the_models_it_runs(tmp_path: Path) -> None:
    names = ("writer", "diffusion", "draft-unet", "open_clip", "image-adapter", "control-edges")
    for name in names:
        (tmp_path / name).mkdir()
    draft = role_folders(Profile.load("shapes-draft"), tmp_path)
    assert {role: folder.name for role, folder in draft.items()} == {
        "writer": "writer",
        "renderer": "diffusion",
        "unet": "draft-unet",
        "image_adapter": "image-adapter",
        "control:canny": "control-edges",
        "image_encoder": "open_clip",
        "judge": "open_clip",
    }
    shapes = Profile.load("shapes")
    raced = shapes.renderer.model_copy(update={"previews": "writer"})
    assert "previews" in role_folders(shapes.model_copy(update={"renderer": raced}), tmp_path)
    remote = shapes.model_copy(
        update={
            "writer": EndpointWriterProfile(),
            "renderer": A1111Profile(),
        }
    )
    assert set(role_folders(remote, tmp_path)) == {"judge", "image_encoder"}


def test_what_embedded_other_tools_collections_is_among_the_models(tmp_path: Path) -> None:
    for name in ("open_clip", "minilm"):
        (tmp_path / name).mkdir()
    shapes = Profile.load("shapes")
    named = {
        name: CollectionProfile(written_by="haystack", embedding=embedding)
        for name, embedding in (("a", "minilm"), ("b", "hashed"), ("c", ""))
    }
    asked = shapes.model_copy(
        update={
            "writer": EndpointWriterProfile(),
            "renderer": A1111Profile(),
            "retrieval": QdrantProfile(collections=named),
        }
    )
    folders = role_folders(asked, tmp_path)
    assert set(folders) == {"judge", "embedding:a"}
    with pytest.raises(ModelError, match=r"has no config\.json; fetch"):
        verify(folders["embedding:a"], "embedding:a")


def test_checking_models_imports_no_torch(pipeline: Path, writer: Path) -> None:
    (writer / "config.json").write_text('{"model_type": "qwen2"}')
    program = f"""
import sys
from pathlib import Path
from pipeline.models import verify
verify(Path({str(writer)!r}), "writer")
verify(Path({str(pipeline)!r}), "renderer")
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_the_hub_gave_before_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "hub" / "models--org--name"
    snapshot = held / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert resolve("org/name", tmp_path / "models", "writer") == snapshot


def test_a_missing_variant_falls_back_to_what_is_there_and_says_so(pipeline: Path) -> None:
    plain = pipeline / "unet" / f"{WEIGHTS}.safetensors"
    half = plain.with_name(f"{WEIGHTS}.fp16.safetensors")
    assert plain in loaded_files(pipeline, "renderer", "fp16")
    assert 'no variant "fp16": its plain files' in remarks(pipeline, "fp16")[0]
    plain.rename(half)
    assert half in loaded_files(pipeline, "renderer", "fp16")
    assert remarks(pipeline, "fp16") == []
    for asked in ("", "bf16"):
        assert half in loaded_files(pipeline, "renderer", asked)
        assert 'its files of variant "fp16" are loaded' in remarks(pipeline, asked)[0]
    write_weights(plain.with_name(f"{WEIGHTS}.bf16.safetensors"))
    with pytest.raises(ModelError, match=r"set renderer\.variant to one of bf16, fp16"):
        verify(pipeline, "renderer")


HUB = ("unet/m.fp16.safetensors", "unet/m.safetensors", "vae/m.safetensors")


@pytest.mark.parametrize(
    ("asked", "found"), [("fp16", {HUB[0], HUB[2]}), ("", {HUB[1], HUB[2]}), ("bf16", {*HUB})]
)
def test_one_variant_is_fetched_and_for_a_part_without_it_what_it_has(
    asked: str, found: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {name.replace("/m", f"/{WEIGHTS}") for name in HUB}
    held = weights | {"all.safetensors", "unet/config.json", "vae/config.json", "unet/m.bin"}

    def download(_: str, *, allow_patterns: list[str], **__: object) -> str:
        for name in held:
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "got" / name).touch()
        return str(tmp_path / "got")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    got = resolve("org/name", tmp_path, "renderer", asked)
    names = {path.relative_to(got).as_posix() for path in got.rglob("*") if path.suffix != ".json"}
    assert {name.replace(WEIGHTS, "m") for name in names if "." in name} == found


def test_a_root_may_be_the_hubs_own_cache(tmp_path: Path) -> None:
    held = tmp_path / "models--org--name"
    commits = {"main": "0" * 40, "v2": "1" * 40}
    (held / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (held / "refs" / name).write_text(commit)
        (held / "snapshots" / commit).mkdir(parents=True)
    main, second = (held / "snapshots" / commit for commit in commits.values())
    assert resolve("org/name", tmp_path, "writer") == main
    assert resolve("models--org--name", tmp_path, "writer") == main
    assert resolve(str(held), tmp_path / "elsewhere", "writer") == main
    assert resolve("org/name@v2", tmp_path, "writer") == second
    assert resolve(f"org/name@{commits['v2']}", tmp_path, "writer") == second
    assert local_model("org/name@v3", tmp_path) is None
    assert local_model("org/other", tmp_path) is None


def test_shards_without_their_index_are_told(pipeline: Path) -> None:
    plain = pipeline / "unet" / f"{WEIGHTS}.safetensors"
    plain.rename(plain.with_name(f"{WEIGHTS}-00001-of-00001.safetensors"))
    with pytest.raises(ModelError, match=rf"{WEIGHTS}\.safetensors\.index\.json is missing"):
        verify(pipeline, "renderer")


@pytest.mark.parametrize("value", [[1, 2], ["a", "b", "c"], [None, None], "x", 3])
def test_a_setting_of_a_pipeline_is_no_part(value: object, pipeline: Path) -> None:
    index = pipeline / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"select_layers": value}))
    verify(pipeline, "renderer")


def test_a_pipeline_of_a_class_of_its_own_is_refused(pipeline: Path) -> None:
    index = pipeline / "model_index.json"
    own = {"_class_name": ["pipeline", "Mine"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | own))
    with pytest.raises(ModelError, match="a model's code is not run"):
        verify(pipeline, "renderer")


def test_a_spare_part_of_pickles_is_left_out(pipeline: Path) -> None:
    (pipeline / "safety_checker").mkdir()
    (pipeline / "safety_checker" / "config.json").write_text("{}")
    (pipeline / "safety_checker" / "pytorch_model.bin").write_bytes(b"")
    verify(pipeline, "renderer")


def test_a_folder_of_models_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    settings = load_settings(models=tmp_path / "none")
    with pytest.raises(ModelError) as missing:
        check_models(settings, settings.chosen_profile)
    assert "PRESSRUN_MODELS: there is no folder" in missing.value.detail.splitlines()[-1]


def edit(file: Path, **entries: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def rename(file: Path, name: str) -> None:
    file.rename(file.with_name(name))


PLAIN, TAGGED = f"{WEIGHTS}.safetensors", f"{WEIGHTS}.fp16.safetensors"
SHARD = f"{WEIGHTS}.fp16-00001-of-00001.safetensors"
LACKS: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "tokenizer" / "tokenizer.json").unlink(), "tokenizer has no tokenizer.json"),
    (
        lambda f: rename(f / "tokenizer" / "tokenizer.json", "vocab.json"),
        "a vocab.json without its merges.txt; fetch",
    ),
    (
        lambda f: (f / "scheduler" / "scheduler_config.json").unlink(),
        "scheduler_config.json is missing; fetch",
    ),
    (
        lambda f: edit(f / "model_index.json", vae=[None, None]),
        "names no vae, which a StableDiffusionPipeline needs: fetch",
    ),
    (
        lambda f: edit(f / "model_index.json", unet=["mine", "UNet"]),
        "names a class of mine, UNet: a model's code is not run; take",
    ),
    (
        lambda f: edit(f / "unet" / "config.json", quantization_config={"quant_method": "gptq"}),
        "unet is quantized by gptq, which needs the package optimum: install it, or take",
    ),
    (
        lambda f: rename(f / "unet" / PLAIN, "flux-Q4.gguf"),
        "flux-Q4.gguf is a GGUF file, .* take the model's folder .* renderer.kind = .a1111",
    ),
    (
        lambda f: rename(f / "unet" / PLAIN, SHARD),
        f"{WEIGHTS}.safetensors.index.fp16.json is missing, .* fetch",
    ),
    (
        lambda f: rename(f / "unet" / PLAIN, "mine.safetensors"),
        "has no .* weights .* only mine.safetensors: give them that name",
    ),
]


@pytest.mark.parametrize(("change", "said"), LACKS)
def test_what_no_library_would_load_is_refused_before_with_a_remedy(
    change: Callable[[Path], object], said: str, pipeline: Path
) -> None:
    change(pipeline)
    with pytest.raises(ModelError, match=said):
        verify(pipeline, "renderer")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("qwen2_5_vl", "no causal language model: take an instruct .* writer.kind = .endpoint"),
        ("t5", "no causal language model"),
        ("qwen2", ""),
        ("gemma3", ""),
        ("a kind of tomorrow", ""),
    ],
)
def test_a_writer_is_a_causal_language_model(kind: str, said: str, writer: Path) -> None:
    (writer / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match=said) if said else nullcontext():
        verify(writer, "writer")


@pytest.mark.parametrize("role", ["writer", "embedding"])
def test_a_language_model_without_any_file_of_its_tokenizer_is_refused(
    role: str, writer: Path
) -> None:
    (writer / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        verify(writer, role)


@pytest.mark.parametrize(
    ("name", "role", "said"),
    [
        (
            "adapter_config.json",
            "writer",
            r"has no config\.json: it is an adapter .*merge_and_unload",
        ),
        ("m.gguf", "writer", "llama.cpp or Ollama"),
        ("m.gguf", "embedding", "take the model's folder"),
        ("model_index.json", "unet", r"a whole pipeline, .* name \S+/unet"),
        ("model_index.json", "judge", "a whole pipeline, of which"),
        ("flux.gguf", "renderer", "renderer.kind"),
    ],
)
def test_a_folder_of_another_layout_is_called_so(
    name: str, role: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match=said):
        verify(tmp_path, role)


@pytest.mark.parametrize("role", ["unet", "writer", "judge", "control"])
def test_no_variant_is_advised_where_there_is_no_key_for_it(role: str, writer: Path) -> None:
    edit(writer / "config.json", model_type="clip" if role == "judge" else "qwen2")
    (writer / "preprocessor_config.json").write_text("{}")
    rename(writer / "model.safetensors", "model.fp16.safetensors")
    with pytest.raises(
        ModelError, match=r"model\.fp16\.safetensors: fetch its plain .* out \.fp16"
    ):
        verify(writer, role)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("hf-hub:org/name", "a hub id, here org/name"),
        ("https://huggingface.co/org/name", "a hub id, here org/name"),
        ("ViT-B-32", "a hub id such as org/name"),
        ("flux1-dev-Q4.gguf", "no folder or file 'flux1-dev-Q4.gguf', neither in"),
    ],
)
def test_a_reference_that_is_none_is_told_how_to_be_one(
    reference: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=said):
        resolve(reference, tmp_path, "judge")
