"""LoRAs in a batch: how fast rows of several LoRAs render, and how their weight shows; ControlNets;
and changes of models in a fleet.

Rows of ten sets of LoRAs render three ways: in mixed batches of the engine, and by diffusers with
PEFT, which switches the LoRAs of its pipeline between calls, for rows as they come (`unplanned`)
and for rows sorted by set (`planned`). `memory_growth` is the resident memory after the mixed rows
over that after the first pass of them, less one. `styled` is, by weight, the share of the images
with a full shape that the shipped LoRA `outlined` makes hollow; `hollow_at_A_to_B` and
`gray_at_A_to_B` are the shares where it has the weight A and the LoRA `monochrome` has B. The keys
that end in `control` are those of `benchmarks.control`, those that begin with `model` of
`benchmarks.model_changes`.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors.torch import load_file, save_file

from benchmarks import control, model_changes
from benchmarks.common import arguments, show
from examples.shapes import world
from pipeline.job import ImageArray, Lora, RenderRequest
from pipeline.models import Models
from pipeline.models.named.loras import LoraFolder
from pipeline.profile import DiffusersProfile, Profile
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer
from pipeline.settings import SHIPPED_MODELS

SETS, BATCH, STEPS, SIDE = 10, 16, 20, 64
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
INK = 0.2
"""A pixel is ink that differs by so much from the image's corner."""
SHIPPED, SECOND = "outlined", "monochrome"
COLOUR = 0.25
"""A pixel has a colour where its channels differ by so much."""
ALONE = 10


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=100, help="images of each weight")
    parser.add_argument("--control-rows", type=int, default=100, help="of a ControlNet; 0: none")
    parser.add_argument("--model-rows", type=int, default=500, help="of three models; 0: none")
    parser.add_argument("--seed", type=int, default=90_001, help="no training used it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        bench = Bench(Path(folder), given.seed)
        figures = bench.speed(given.rows) | bench.style(given.prompts)
    if given.control_rows:
        figures |= control.measure(given.control_rows, given.seed)
    if given.model_rows:
        figures |= model_changes.measure(given.model_rows)
    show("Adapters and models", figures)
    if given.json:
        print(json.dumps(figures))


class Bench:
    """The shapes' renderer with SETS LoRAs, made of the shipped one by noise on its matrices."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        state = load_file(SHIPPED_MODELS / "loras" / f"{SHIPPED}.safetensors")
        torch.manual_seed(seed)
        for name in (SHIPPED, SECOND):
            shutil.copy(SHIPPED_MODELS / "loras" / f"{name}.safetensors", folder)
        for number in range(SETS):
            noisy = {key: w + 0.1 * w.std() * torch.randn_like(w) for key, w in state.items()}
            save_file(noisy, folder / f"{number}.safetensors")
        profile = Profile.load("shapes").renderer
        assert isinstance(profile, DiffusersProfile)
        profile = profile.model_copy(
            update={"loras": str(folder), "image_adapter": "", "batch": BATCH}
        )
        self._models, self._profile = Models(SHIPPED_MODELS), profile
        self._folder, self._loras = folder, LoraFolder(folder)
        self._engine = EngineRenderer(
            self._models, profile, DiffusersRenderer(self._models, profile)
        )

    def speed(self, count: int) -> dict[str, Any]:
        """Images per second of each way as ratios, changes of LoRAs, and growth of memory."""
        rows = self._rows(count)
        ordered = sorted(rows, key=_set_of)
        self._mixed(rows[: 2 * SETS])  # every LoRA is loaded, as it is in a long run
        mixed = self._timed(self._mixed, rows)
        first = psutil.Process().memory_info().rss
        self._mixed(rows)
        growth = psutil.Process().memory_info().rss / first - 1
        pipe = Models(SHIPPED_MODELS).diffusion(self._profile)
        for number in range(SETS):
            pipe.load_lora_weights(
                self._folder / f"{number}.safetensors", adapter_name=f"_{number}"
            )
        unplanned = self._timed(lambda given: self._switching(pipe, given), rows)
        planned = self._timed(lambda given: self._switching(pipe, given), ordered)
        return {
            "rows": count,
            "sets": SETS,
            "mixed_vs_switching": unplanned / mixed,
            "mixed_vs_planned": planned / mixed,
            "planned_vs_unplanned": unplanned / planned,
            "changes_unplanned": len(list(groupby(rows, _set_of))),
            "changes_planned": len(list(groupby(ordered, _set_of))),
            "memory_growth": growth,
        }

    def style(self, count: int) -> dict[str, Any]:
        """The share of styled images by weight, and whether weight 0 is the model's own image."""
        prompts = [world.prompt(world.sample_scene(self._rng, two=0.0)) for _ in range(count)]
        plain = self._mixed([_request(text, n, ()) for n, text in enumerate(prompts)])
        full = [not _hollow(image) for image in plain]
        shares = {}
        for weight in WEIGHTS:
            loras = (self._lora(SHIPPED, weight),)
            images = self._mixed([_request(text, n, loras) for n, text in enumerate(prompts)])
            hollow = [_hollow(image) for image, was in zip(images, full, strict=True) if was]
            shares[f"styled_at_{weight:g}"] = float(np.mean(hollow))
        coloured = [not _gray(image) for image in plain]
        for weight in WEIGHTS:
            both = (self._lora(SHIPPED, weight), self._lora(SECOND, 1 - weight))
            images = self._mixed([_request(text, n, both) for n, text in enumerate(prompts)])
            for name, shows, could in (("hollow", _hollow, full), ("gray", _gray, coloured)):
                found = [shows(image) for image, was in zip(images, could, strict=True) if was]
                shares[f"{name}_at_{weight:g}_to_{1 - weight:g}"] = float(np.mean(found))
        # one at a time: the size of a batch moves the last bits
        same = True
        for number, text in enumerate(prompts[:ALONE]):
            own, nothing = (
                self._mixed([_request(text, number, loras)])
                for loras in ((), (self._lora(SHIPPED, 0.0),))
            )
            same = same and np.array_equal(own, nothing)
        return {"zero_is_plain": same, **shares}

    def _rows(self, count: int) -> list[RenderRequest]:
        """Rows of all sets in turn, in an order by chance."""
        order = self._rng.permutation(count)
        prompts = [world.prompt(world.sample_scene(self._rng, two=0.5)) for _ in range(count)]
        loras = [(self._lora(str(number), 0.8),) for number in range(SETS)]
        return [_request(prompts[n], int(n), loras[n % SETS]) for n in order]

    def _lora(self, name: str, weight: float) -> Lora:
        return Lora(name=name, weight=weight, digest=self._loras.find(name).digest)

    def _mixed(self, rows: Sequence[RenderRequest]) -> list[ImageArray]:
        with ThreadPoolExecutor(2 * BATCH) as pool:
            done = list(pool.map(self._engine.render, rows))
        return [image for images in done for image in images if image is not None]

    def _switching(self, pipe: Any, rows: Sequence[RenderRequest]) -> None:
        for batch in _batches(rows):
            pipe.set_adapters([f"_{_set_of(batch[0])}"], [batch[0].loras[0].weight])
            generators = [torch.Generator().manual_seed(row.seeds[0]) for row in batch]
            pipe(generator=generators, **call_arguments(pipe, batch))

    @staticmethod
    def _timed(render: Any, rows: Sequence[RenderRequest]) -> float:
        start = time.perf_counter()
        render(rows)
        return time.perf_counter() - start


def _request(prompt: str, seed: int, loras: tuple[Lora, ...]) -> RenderRequest:
    return RenderRequest(
        prompt=prompt, negative="", width=SIDE, height=SIDE, steps=STEPS, guidance=2.5,
        seeds=(seed,), loras=loras,
    )  # fmt: skip


def _set_of(row: RenderRequest) -> str:
    return row.loras[0].name


def _batches(rows: Sequence[RenderRequest]) -> Iterator[list[RenderRequest]]:
    """Neighbours of one set, at most BATCH together."""
    for _, group in groupby(rows, _set_of):
        same = list(group)
        for start in range(0, len(same), BATCH):
            yield same[start : start + BATCH]


def _hollow(image: ImageArray) -> bool:
    """True where the middle of what was drawn is the background's colour."""
    ink = np.abs(image - image[0, 0]).max(axis=2) > INK
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return False
    middle = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, side // 3) for side in middle.shape)
    return bool(middle[height : 2 * height, width : 2 * width].mean() < 0.5)


def _gray(image: ImageArray) -> bool:
    """True where nothing has a colour."""
    return bool(np.percentile(np.ptp(image, axis=2), 98) < COLOUR)


if __name__ == "__main__":
    main()
