"""The folder of a profile's LoRAs."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.models.checkpoints import part_config
from pipeline.models.named.folder import WeightsFolder

MOST_RANK = 512

_PART = re.compile(
    r"(?P<layer>.{1,400}?)[._]lora(?:_linear_layer)?[._](?P<part>down|up|A|B)(?:\.default)?\.weight"
)
"""Low-rank matrices in the names of diffusers, PEFT and kohya."""
_READS_TEXTS = re.compile(r"attn2[._](?:processor[._])?to_k[._]?lora.*(?:down|A)\b")
_TRANSFORMER = re.compile(r"(?:double|single|joint)_(?:transformer_)?blocks")
_OTHER = re.compile(r"dora|magnitude|lokr|hada|oft|glora|diff|norm|bias")


class LoraFolder(WeightsFolder):
    """Plain LoRAs, of a rank up to MOST_RANK."""

    kind = "LoRA"
    largest = 4 << 30

    def size(self, header: Mapping[str, Mapping[str, Any]]) -> int:
        """The number of layers, each with its pair of matrices."""
        parts = defaultdict[str, dict[bool, int]](dict)
        for key, entry in header.items():
            if key.endswith(".alpha"):
                continue
            if not (found := _PART.fullmatch(key)):
                kind = _OTHER.search(key)
                what = f"{kind[0]} weights" if kind else f"{key[:80]!r}"
                raise ValueError(f"it holds more than low-rank matrices: {what}")
            down = found["part"] in ("down", "A")
            parts[found["layer"]][down] = int(entry["shape"][0 if down else 1])
        ranks = [set(each.values()) for each in parts.values() if len(each) == 2]
        if not parts or len(ranks) < len(parts) or any(len(each) > 1 for each in ranks):
            raise ValueError("it does not hold pairs of low-rank matrices alone")
        if (most := max(map(max, ranks))) > MOST_RANK:
            raise ValueError(f"it has rank {most}, and {MOST_RANK} is the most")
        return len(ranks)

    def fit(self, header: Mapping[str, Mapping[str, Any]], model: Path) -> None:
        """Compare a UNet's LoRA with the width of the texts that the model reads, and refuse one of
        a transformer for a UNet.
        """
        if not (config := part_config(model, "unet")):
            return
        width = config.get("cross_attention_dim")
        for key, entry in header.items():
            if _TRANSFORMER.search(key):
                raise ValueError("it was made for a transformer, and the model is a UNet")
            if _READS_TEXTS.search(key) and entry["shape"][1:] != [width]:
                theirs = ", ".join(map(str, entry["shape"][1:]))
                raise ValueError(
                    f"it was made for another model: its layers read texts of width {theirs}, the"
                    f" model's of {width}"
                )
