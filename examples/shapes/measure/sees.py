"""The accuracy of the small model that sees: at checks, as a judge, and at descriptions.

    python -m examples.shapes.measure.sees MODELS [SEED]

Protocol, on held-out seeds; P(yes) is that of the first token of the answer to
`Does this image show "..."?`, of Yes against No.
- `drawn_captions`, `drawn_phrases`: the share of right answers (yes is P(yes) above a half)
  about drawn images, a third of them with things spoiled; captions name the background.
- `drawn_blobs`: the share of images with a spoiled thing whose whole caption is denied.
- `described`: the share of whole drawn images whose description parses as their scene.
- `draft_one`, `draft_two`: area under the ROC curve of P(yes) for the prompt between the draft
  renderer's images that the umpire confirms and the others; `draft_*_clip` with the judge's cosine.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from examples.shapes import world
from examples.shapes.measure.judge import Judge, Scores, area, trials
from examples.shapes.training.judge.data import FIELDS, UNSAID
from examples.shapes.training.sees import asking, looks, wording
from examples.shapes.umpire import Images

NAMES = list(FIELDS)


class Sees:
    """The model's folder, asked questions through its processor as any such model is."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        ids = self.processor.tokenizer.convert_tokens_to_ids
        self.answers = [ids(wording.NO), ids(wording.YES)]

    @torch.inference_mode()
    def chances(self, images: Images, questions: Sequence[str], batch: int = 64) -> Scores:
        """P(yes) of each question about the image at its place."""
        parts = []
        for start in range(0, len(images), batch):
            chosen = slice(start, start + batch)
            logits = self.model(**self._inputs(images[chosen], questions[chosen])).logits[:, -1]
            parts.append(logits[:, self.answers].softmax(-1)[:, 1])
        return torch.cat(parts).double().numpy()

    @torch.inference_mode()
    def descriptions(self, images: Images) -> list[str]:
        """The model's own caption of each."""
        inputs = self._inputs(images, [wording.DESCRIBE] * len(images))
        written = self.model.generate(**inputs, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self.processor.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _inputs(self, images: Images, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        chats = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
            for text in texts
        ]
        prompts = self.processor.apply_chat_template(chats, add_generation_prompt=True)
        pictures = [Image.fromarray(image) for image in images]
        inputs = self.processor(images=pictures, text=prompts, padding=True, return_tensors="pt")
        return dict(inputs)


def measure(models: Path, seed: int, count: int = 160) -> dict[str, float]:
    """The figures above, over `count` generated images and five times as many drawn ones."""
    sees = Sees(models / "sees")
    figures = drawn(sees, 5 * count, np.random.default_rng(seed))
    trial = trials(models, count, seed)["draft"]
    prompts = [world.prompt(scene) for scene in trial.scenes]
    found = {
        "": sees.chances(trial.images, [wording.question(text) for text in prompts]),
        "_clip": Judge(models / "open_clip").cosines(trial.images, prompts),
    }
    for name, scores in found.items():
        for kind, chosen in (("one", ~trial.pairs), ("two", trial.pairs)):
            right, other = scores[chosen & trial.shown], scores[chosen & ~trial.shown]
            figures[f"draft_{kind}{name}"] = area(right, other)
    return figures


def drawn(sees: Sees, count: int, rng: np.random.Generator) -> dict[str, float]:
    """The figures about drawn images."""
    shown = looks.drawn(count, rng)
    known = [asking.truth(shown, index) for index in range(count)]
    asked = [(i, c) for i in range(count) for c in asking.checks(known[i], 6, rng)]
    where, checks = [i for i, _ in asked], [check for _, check in asked]
    says = sees.chances(shown.images[where], [check.text for check in checks])
    right = (says > 0.5) == np.array([check.yes for check in checks])
    said = np.array([check.said for check in checks])[
        :, [NAMES.index("count"), NAMES.index("background")]
    ]
    caption = (said != UNSAID).all(1)
    first = np.array([not at or where[at - 1] != where[at] for at in range(len(where))])
    whole = np.flatnonzero(shown.whole)[:200]
    told = sees.descriptions(shown.images[whole])
    parsed = [world.parse(text) for text in told]
    hits = [said == world.attributes(known[i].scene) for said, i in zip(parsed, whole, strict=True)]
    return {
        "drawn_captions": float(right[caption].mean()),
        "drawn_phrases": float(right[~caption].mean()),
        "drawn_blobs": float(1 - (says[first][shown.spoiled.any(1)] > 0.5).mean()),
        "described": float(np.mean(hits)),
    }


def main() -> None:
    """Print the figures as JSON."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 78_000
    figures = measure(Path(sys.argv[1]), seed)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
