"""Single-file checkpoints: read by their headers, loaded offline, refused by name."""

import json
import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ModelError
from pipeline.models import Models, digest, loading, resolve, verify
from pipeline.models.checkpoints import UNET, checkpoint, part_config
from pipeline.models.controlnets import check_fit
from pipeline.models.diffusion import predicts_noise
from pipeline.models.digests import sha256_of
from pipeline.profile import DiffusersProfile
from tests.harness import original_layout, small_models


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SD 1.5 in one file."""
    folder = tmp_path_factory.mktemp("models")
    original_layout.save(original_layout.stable_diffusion(), folder / "dream.safetensors")
    return folder


@pytest.fixture(scope="module")
def held(root: Path) -> dict[str, torch.Tensor]:
    """Its tensors."""
    found: dict[str, torch.Tensor] = load_file(root / "dream.safetensors")
    return found


def test_a_file_is_a_model_by_path_or_below_the_root(root: Path) -> None:
    file = root / "dream.safetensors"
    assert resolve("dream.safetensors", root, "renderer") == file
    assert resolve(str(file), root / "elsewhere", "renderer") == file
    assert digest(file, "renderer") == sha256_of([file])[0], "as other tools show it"
    with pytest.raises(ModelError, match="this model has to be a folder"):
        verify(file, "writer")
    with pytest.raises(ModelError, match=rf"has no model_index.json; .* name the file: {file}"):
        verify(root, "renderer")


@pytest.mark.parametrize(
    ("name", "said"), [("old.ckpt", "is a pickle"), ("small.gguf", "renderer.kind = .a1111")]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=said):
        verify(tmp_path / name, "renderer")


WEIGHT = torch.zeros(1)
LACKING = {
    "no VAE": "first_stage_model.",
    "no text encoder": "cond_stage_model.",
    "unknown in this layout": "model.diffusion_model.input_blocks.0.0.weight",
    "lacks model.diffusion_model.out.2.weight": "model.diffusion_model.out.2.",
}


@pytest.mark.parametrize("said", LACKING)
def test_a_file_that_lacks_a_part_is_refused(
    said: str, held: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    left = {key: value for key, value in held.items() if not key.startswith(LACKING[said])}
    save_file(left, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=said):
        verify(tmp_path / "a.safetensors", "renderer")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora_unet_down_blocks_0.lora_down.weight"], "is a LoRA: .*renderer.loras"),
        (["unet.a.lora_A.weight"], "is a LoRA"),
        (["first_stage_model.decoder.conv_in.weight"], "is a VAE alone"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "is a VAE alone"),
        (["emb_params"], "is a textual inversion: .*renderer.embeddings"),
        (["ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"], "is an image adapter"),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet"),
        (["down_blocks.0.resnets.0.conv1.weight"], "is a denoiser alone"),
        (["text_model.final_layer_norm.weight"], "is a text encoder alone"),
        (["a", "b"], "is of an unknown layout"),
        (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "is of FLUX"),
    ],
)
def test_a_file_that_is_something_else_is_called_so(
    names: list[str], said: str, tmp_path: Path
) -> None:
    save_file({name: WEIGHT.clone() for name in names}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=said):
        verify(tmp_path / "a.safetensors", "renderer")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conditioner.embedders.0.model.ln_final.weight": WEIGHT}, "refiner"),
        ({"edm_mean": WEIGHT}, "Playground"),
        ({"model.diffusion_model.out.2.scale_weight": WEIGHT}, "is quantized"),
        ({"model.diffusion_model.out.2.weight": WEIGHT.to(torch.uint8)}, r"is quantized \(U8\)"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 7, 3, 3)}, "7 channels"),
        ({"model.diffusion_model.input_blocks.1.0.out_layers.3.weight": torch.zeros(())}, "shape"),
        (
            {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": WEIGHT},
            "knows 1 tokens",
        ),
    ],
)
def test_a_checkpoint_of_an_unknown_kind_is_refused(
    change: dict[str, torch.Tensor], said: str, held: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(held | change, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=said):
        verify(tmp_path / "a.safetensors", "renderer")


@pytest.mark.parametrize("model", ["dream.safetensors", "dream"])
def test_the_memory_of_a_file_is_that_of_its_parts(root: Path, tmp_path: Path, model: str) -> None:
    original_layout.stable_diffusion().save_pretrained(root / "dream")
    models = Models(root, "cpu")

    def nbytes(**settings: object) -> int:
        return models.nbytes(DiffusersProfile.model_validate({"model": model} | settings))

    whole, small = nbytes(), nbytes(memory={"weights": "float8"})
    models.offloaded = lambda _: True  # type: ignore[method-assign]  # as on a small GPU
    vae = nbytes()
    assert 0 < vae < whole
    assert vae < small < whole
    models.offloaded = lambda _: False  # type: ignore[method-assign]
    small_models.made("sd").unet.save_pretrained(root / "unet")
    assert nbytes(unet="unet") <= whole


def test_a_header_with_too_many_modules_is_refused(
    held: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    many = {f"{UNET}input_blocks.{number}.0.weight": torch.zeros(1) for number in range(200)}
    save_file(many | held, tmp_path / "many.safetensors")
    with pytest.raises(ModelError, match="one module too many"):
        checkpoint(tmp_path / "many.safetensors")


@pytest.mark.parametrize(
    "gone",
    [
        "model.diffusion_model.middle_block.0.out_layers.3.bias",
        "first_stage_model.decoder.norm_out.weight",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    ],
)
def test_a_damaged_file_is_refused_when_it_is_loaded(
    gone: str, held: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    left = {key: value for key, value in held.items() if key != gone}
    save_file(left, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="lacks some of its weights"):
        Models(tmp_path, "cpu").diffusion(DiffusersProfile(model="a.safetensors"))


@pytest.mark.parametrize("shape", ["[NaN]", "[-1]", "[1.5]", "[true]", "7", '["4"]', "null"])
def test_a_header_with_an_impossible_shape_is_refused(shape: str, tmp_path: Path) -> None:
    header = f'{{"a": {{"dtype": "F16", "shape": {shape}, "data_offsets": [0, 6]}}}}'.encode()
    file = tmp_path / "a.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(6))
    with pytest.raises(ModelError, match="malformed"):
        verify(file, "renderer")


@pytest.mark.parametrize(
    ("more", "metadata", "wanted"),
    [
        ({}, {}, {"prediction_type": "epsilon"}),
        ({"v_pred": WEIGHT}, {}, {"prediction_type": "v_prediction"}),
        ({}, {"modelspec.prediction_type": "v"}, {"prediction_type": "v_prediction"}),
        (
            {"v_pred": WEIGHT, "ztsnr": WEIGHT.clone()},
            {},
            {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        ),
    ],
)
def test_the_prediction_is_what_the_file_says(
    more: dict[str, torch.Tensor],
    metadata: dict[str, str],
    wanted: dict[str, Any],
    held: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    save_file(held | more, tmp_path / "a.safetensors", metadata)
    assert wanted.items() <= checkpoint(tmp_path / "a.safetensors").configs["scheduler"].items()


@pytest.mark.parametrize("predicts", [True, False])
def test_a_prediction_that_no_file_tells_is_found_by_a_call(predicts: bool) -> None:
    class Unet(torch.nn.Module):
        dtype = torch.float32
        config = types.SimpleNamespace(in_channels=4, sample_size=8, cross_attention_dim=16)

        def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> Any:
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
            return types.SimpleNamespace(sample=x + 0.2 * noise if predicts else noise - 0.1 * x)

    assert predicts_noise(Unet()) is predicts


def test_a_file_with_nine_channels_is_for_inpainting(
    held: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    key = "model.diffusion_model.input_blocks.0.0.weight"
    save_file(held | {key: torch.zeros(32, 9, 3, 3)}, tmp_path / "a.safetensors")
    pipe = Models(tmp_path, "cpu").diffusion(DiffusersProfile(model="a.safetensors"))
    assert type(pipe).__name__ == "StableDiffusionInpaintPipeline"


def test_a_controlnet_is_compared_with_the_file(root: Path, tmp_path: Path) -> None:
    pipe = original_layout.stable_diffusion()
    small_models.save_controlnet(pipe, tmp_path / "fits")
    small_models.save_controlnet(small_models.made("sd"), tmp_path / "other")
    file = root / "dream.safetensors"
    assert check_fit(tmp_path / "fits", file) == "ControlNetModel"
    with pytest.raises(ModelError, match="for another model"):
        check_fit(tmp_path / "other", file)


SD_1 = {
    "block_out_channels": [320, 640, 1280, 1280],
    "transformer_layers_per_block": [1, 1, 1, 1],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.mark.parametrize(("family", "wanted"), [("sd1", SD_1), ("sdxl", SDXL)])
def test_the_published_sizes_are_found(
    family: str, wanted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        pipe = original_layout.published(family)
    file, start = tmp_path / "a.safetensors", 0
    header = dict[str, Any]()
    for name, value in original_layout.weights(pipe).items():
        end = start + 2 * value.numel()
        header[name] = {"dtype": "F16", "shape": [*value.shape], "data_offsets": [start, end]}
        start = end
    written = json.dumps(header).encode()
    file.write_bytes(len(written).to_bytes(8, "little") + written)
    with file.open("r+b") as sparse:
        sparse.truncate(8 + len(written) + start)
    found = checkpoint(file)
    unet = part_config(file, "unet")
    assert found.family == family
    assert wanted.items() <= unet.items()
    assert unet["layers_per_block"] == 2
    assert part_config(file, "vae")["block_out_channels"] == [128, 256, 512, 512]
    assert part_config(file, "text_encoder")["num_hidden_layers"] == 12
    if family == "sdxl":
        second = part_config(file, "text_encoder_2")
        assert (second["num_hidden_layers"], second["num_attention_heads"]) == (32, 20)
    # nothing is read but the header: the weights are a hole of some gigabytes
    verify(file, "renderer")
    monkeypatch.setattr(loading, "digest", lambda *_: "of gigabytes")
    profile = DiffusersProfile(model=file.name, dtype="float16")
    assert Models(tmp_path, "cpu").nbytes(profile) == start


def test_a_folder_is_made_of_a_denoisers_file_as_the_docs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    (program,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    base = "models/black-forest-labs/FLUX.1-schnell"
    assert base in program
    monkeypatch.chdir(tmp_path)
    small_models.save("qwen-image", Path(base))
    torch.manual_seed(7)
    fine_tuned = small_models.made("qwen-image").transformer
    for weight in fine_tuned.parameters():
        torch.nn.init.normal_(weight)
    held = fine_tuned.state_dict()
    save_file(held, tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match=r"is a denoiser alone, .* docs/models\.md"):
        verify(tmp_path / "mine.safetensors", "renderer")
    exec(program.replace("FluxTransformer2DModel", "QwenImageTransformer2DModel"))
    verify(tmp_path / "models" / "mine", "renderer")
    made = Models(tmp_path / "models", "cpu").diffusion(DiffusersProfile(model="mine")).transformer
    for key, value in made.state_dict().items():
        assert torch.equal(value.float(), held[key].bfloat16().float())
