"""A folder of LoRAs: what is found by name, and what is refused without loading it."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import JobError, ModelError
from pipeline.models.named.loras import MOST_RANK, LoraFolder


def a_lora(layer: str = "unet.mid.to_q", rank: int = 2, wide: int = 4) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.lora_A.weight": torch.ones(rank, wide),
        f"{layer}.lora_B.weight": torch.ones(wide, rank),
    }


def saved(folder: Path, tensors: dict[str, torch.Tensor], name: str = "a") -> LoraFolder:
    save_file(tensors, folder / f"{name}.safetensors")
    return LoraFolder(folder)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("unet.mid.to_q.lora_A.weight", "unet.mid.to_q.lora_B.weight"),
        ("unet.mid.to_q.lora.down.weight", "unet.mid.to_q.lora.up.weight"),
        ("unet.mid.processor.to_q_lora.down.weight", "unet.mid.processor.to_q_lora.up.weight"),
        ("lora_unet_mid_to_q.lora_down.weight", "lora_unet_mid_to_q.lora_up.weight"),
        ("a.to_q.lora_linear_layer.down.weight", "a.to_q.lora_linear_layer.up.weight"),
    ],
)
def test_the_names_of_every_tool_are_read(tmp_path: Path, down: str, up: str) -> None:
    tensors = {down: torch.ones(2, 4), up: torch.ones(4, 2)}
    if "_down" in down:
        tensors["lora_unet_mid_to_q.alpha"] = torch.tensor(2.0)
    assert saved(tmp_path, tensors).find("a").size == 1


def test_names_have_spaces_and_brackets_as_downloads_have(tmp_path: Path) -> None:
    name = "Detail Tweaker (XL) v1.0"
    assert saved(tmp_path, a_lora(), name).find(name).file.stem == name


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (a_lora(rank=MOST_RANK + 1), f"has rank {MOST_RANK + 1}"),
        (a_lora(rank=4096), "has rank 4096"),
        ({"unet.mid.lora_A.weight": torch.ones(2, 4)}, "not hold pairs"),
        ({}, "not hold pairs"),
        (a_lora() | {"unet.mid.to_q.lora_B.weight": torch.ones(4, 3)}, "not hold pairs"),
        ({"a.lora_A.weight": torch.tensor(1.0), "a.lora_B.weight": torch.ones(1)}, "be used"),
        (a_lora() | {"unet.mid.to_q.dora_scale": torch.ones(4)}, "more than .*: dora weights"),
        (a_lora() | {"unet.mid.lokr_w1": torch.ones(4)}, "more than .*: lokr weights"),
        (a_lora() | {"unet.mid.to_q.diff_b": torch.ones(4)}, "more than .*: diff weights"),
        ({"unet.conv_in.weight": torch.ones(4)}, "more than .*: 'unet.conv_in.weight'"),
    ],
)
def test_what_is_no_plain_lora_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        saved(tmp_path, tensors).find("a")


def test_a_pickle_is_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(JobError, match=r"'a' is a pickle \(\.pt\)"):
        LoraFolder(tmp_path).find("a")


def test_a_pickle_by_the_name_of_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(print) + b"." * 99)
    with pytest.raises(JobError, match="cannot be used"):
        LoraFolder(tmp_path).find("a")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(JobError, match="there is no LoRA 'a'"):
        LoraFolder(tmp_path).find("a")


def test_a_missing_one_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no LoRA 'b' in .* \(there are: a\)"):
        saved(tmp_path, a_lora()).find("b")


@pytest.mark.parametrize("name", ["長" * 90, "a" * 100])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match=r"cannot be read|there is no LoRA"):
        saved(tmp_path, a_lora()).find(name)


def test_a_file_whose_name_nobody_can_write_is_passed_over(tmp_path: Path) -> None:
    folder = saved(tmp_path, a_lora())
    state = folder.state()
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.safetensors")).write_bytes(b"")
    assert folder.names() == ["a"]
    assert folder.state() == state


def test_a_file_that_has_changed_is_looked_at_again(tmp_path: Path) -> None:
    folder = saved(tmp_path, a_lora())
    before, state = folder.find("a").digest, folder.state()
    save_file(a_lora(rank=3), tmp_path / "a.safetensors")
    assert folder.find("a").digest != before
    assert folder.state() != state


def test_a_profile_may_name_no_folder_and_no_missing_one(tmp_path: Path) -> None:
    assert LoraFolder.open("", tmp_path) is None
    with pytest.raises(ModelError, match="no folder of LoRAs 'b'"):
        LoraFolder.open("b", tmp_path)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, number: float, dtype: torch.dtype
) -> None:
    tensors = {key: each.to(dtype) for key, each in a_lora(rank=3, wide=5).items()}
    tensors["unet.mid.to_q.lora_A.weight"][0, 0] = torch.finfo(dtype).max
    assert saved(tmp_path, tensors, "large").find("large").size == 1
    tensors["unet.mid.to_q.lora_A.weight"][2, 4] = number
    with pytest.raises(JobError, match="numbers that are not finite"):
        saved(tmp_path, tensors).find("a")


@pytest.mark.parametrize(
    ("layer", "wide", "said"),
    [
        ("unet.down_blocks.0.attn2.to_k", 768, ""),
        ("unet.down_blocks.0.attn1.to_k", 320, ""),
        ("unet.down_blocks.0.attn2.to_k", 2048, "read texts of width 2048, the model's of 768"),
        ("unet.down_blocks.0.attn2.processor.to_k", 1024, "of width 1024"),
        ("lora_unet_down_blocks_0_attn2_to_k", 2048, "of width 2048"),
        ("transformer.single_transformer_blocks.0.attn.to_k", 3072, "made for a transformer"),
        ("lora_unet_double_blocks_0_img_attn_qkv", 3072, "made for a transformer"),
    ],
)
def test_a_lora_of_another_base_is_told_by_its_header(
    tmp_path: Path, layer: str, wide: int, said: str
) -> None:
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "config.json").write_text('{"cross_attention_dim": 768}')
    saved(tmp_path, a_lora(layer, wide=wide))
    folder = LoraFolder.open(str(tmp_path), tmp_path, model="model")
    assert folder is not None
    if said:
        with pytest.raises(JobError, match=said):
            folder.find("a")
    else:
        assert folder.find("a").size == 1
