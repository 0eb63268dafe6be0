"""A folder of textual inversions: the layouts that are read, and what is refused unloaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import JobError
from pipeline.models.named.textual_inversions import MOST_VECTORS, TextualInversionFolder


def saved(folder: Path, tensors: dict[str, torch.Tensor]) -> TextualInversionFolder:
    save_file(tensors, folder / "a.safetensors")
    return TextualInversionFolder(folder)


@pytest.mark.parametrize(
    ("tensors", "vectors"),
    [
        ({"emb_params": torch.ones(3, 4)}, 3),
        ({"<a-cat>": torch.ones(4, dtype=torch.float16)}, 1),
        ({"<a-cat>": torch.ones(MOST_VECTORS, 4)}, MOST_VECTORS),
        ({"clip_l": torch.ones(2, 4), "clip_g": torch.ones(2, 6)}, 2),
    ],
)
def test_the_layouts_of_every_tool_are_read(
    tmp_path: Path, tensors: dict[str, torch.Tensor], vectors: int
) -> None:
    assert saved(tmp_path, tensors).find("a").size == vectors


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "neither one tensor .* but nothing"),
        ({"x": torch.ones(1, 4), "y": torch.ones(1, 4)}, "neither one tensor .* but x, y"),
        ({"emb_params": torch.ones(MOST_VECTORS + 1, 4)}, "has 76 vectors, and 75 are the most"),
        ({"emb_params": torch.ones(0, 4)}, "has 0 vectors"),
        ({"emb_params": torch.ones(1, 2, 4)}, r"has the shape \[1, 2, 4\]"),
        ({"emb_params": torch.tensor(1.0)}, "be used"),
        ({"emb_params": torch.ones(1, 9000)}, r"has the shape \[1, 9000\]"),
        ({"emb_params": torch.ones(1, 4, dtype=torch.int32)}, "is none of F16, BF16, F32"),
        ({"clip_l": torch.ones(2, 4), "clip_g": torch.ones(3, 6)}, "different numbers of vectors"),
    ],
)
def test_what_is_no_textual_inversion_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    with pytest.raises(JobError, match=rf"the embedding 'a' .*{said}"):
        saved(tmp_path, tensors).find("a")


def test_a_file_of_a_models_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.truncate(TextualInversionFolder.largest + 1)
    with pytest.raises(JobError, match="has 16777217 bytes; 16777216 are the most"):
        TextualInversionFolder(tmp_path).find("a")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, ""),
        ({"emb_params": torch.ones(2, 768)}, ""),
        ({"emb_params": torch.ones(2, 1024)}, "have width 1024, those of the .* 768, 1280"),
    ],
)
def test_an_embedding_of_another_base_is_told_by_its_header(
    tmp_path: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    for name, width in (("text_encoder", 768), ("text_encoder_2", 1280)):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "config.json").write_text(f'{{"hidden_size": {width}}}')
    saved(tmp_path, tensors)
    folder = TextualInversionFolder.open(str(tmp_path), tmp_path, model="model")
    assert folder is not None
    if said:
        with pytest.raises(JobError, match=said):
            folder.find("a")
    else:
        assert folder.find("a").size == 2
