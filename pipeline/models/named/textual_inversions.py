"""The folder of a profile's textual inversions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.models.checkpoints import part_config
from pipeline.models.named.folder import WeightsFolder

MOST_VECTORS = 75
"""A CLIP reads no more tokens beside the first and the last."""
LARGEST_WIDTH = 8192
TWO_ENCODERS = ("clip_l", "clip_g")
"""Names of the tensors for SDXL's first and second text encoder."""
_FLOATS = ("F16", "BF16", "F32")


class TextualInversionFolder(WeightsFolder):
    """Textual inversions as A1111, kohya's scripts and diffusers save them: one tensor of [vectors,
    width] or [width] under any name, or SDXL's two.
    """

    kind = "embedding"
    largest = 16 << 20

    def size(self, header: Mapping[str, Mapping[str, Any]]) -> int:
        """The number of vectors, each of which takes the place of a token."""
        if len(header) != 1 and header.keys() != set(TWO_ENCODERS):
            raise ValueError(
                f"it holds neither one tensor nor {' and '.join(TWO_ENCODERS)}, but"
                f" {', '.join(sorted(header)[:5])[:200] or 'nothing'}"
            )
        counts = set[int]()
        for key, entry in header.items():
            *vectors, width = map(int, entry["shape"])
            if len(vectors) > 1 or not 1 <= width <= LARGEST_WIDTH:
                shape = str(entry["shape"])[:80]
                raise ValueError(f"{key[:80]!r} has the shape {shape}, not [vectors, width]")
            if entry["dtype"] not in _FLOATS:
                raise ValueError(f"{key[:80]!r} is none of {', '.join(_FLOATS)}")
            counts.add(vectors[0] if vectors else 1)
        if len(counts) > 1:
            raise ValueError("its tensors have different numbers of vectors")
        (count,) = counts
        if not 1 <= count <= MOST_VECTORS:
            raise ValueError(f"it has {count} vectors, and {MOST_VECTORS} are the most")
        return count

    def fit(self, header: Mapping[str, Mapping[str, Any]], model: Path) -> None:
        """Compare the width of the vectors with those of the model's text encoders."""
        configs = (part_config(model, name) for name in ("text_encoder", "text_encoder_2"))
        widths = {int(width) for each in configs if (width := each.get("hidden_size"))}
        own = {int(entry["shape"][-1]) for entry in header.values()}
        if widths and not own <= widths:
            theirs, ours = (", ".join(map(str, sorted(each))) for each in (own, widths))
            raise ValueError(
                f"it was made for another model: its vectors have width {theirs}, those of the "
                f"model's text encoders {ours}"
            )
