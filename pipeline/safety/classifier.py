"""The chance that an image has one of some labels, told by an image classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.job import ImageArray
from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.models.safetensors import read_json
from pipeline.profile import ClassifierGuardProfile


class Classifier:
    """An image classification model of transformers. Raises ModelError for labels that it does not
    have.
    """

    def __init__(self, models: Models, profile: ClassifierGuardProfile) -> None:
        self._models, self._profile = models, profile
        names = labels(models.folder(profile.model, "guard"))
        check_labels(names, profile)
        self._places = [place for place, name in enumerate(names) if name in profile.labels]
        self._batcher = models.batcher(
            "guard", self._run, limit=profile.batch, size=lambda call: len(call) or 1
        )

    def load(self) -> None:
        """Load the model ahead of its first use."""
        self._models.classifier(self._profile.model, self._profile.dtype)

    def chances(self, images: Sequence[ImageArray]) -> list[float]:
        """One chance in 0..1 for each image, in order."""
        _, processor = self._models.classifier(self._profile.model, self._profile.dtype)
        # in the caller's own thread, as arrays: torch's default dtype may be another model's now
        pixels = [
            processor(images=to_image(image), return_tensors="np")["pixel_values"][0]
            for image in images
        ]
        return self._batcher(pixels)

    def _run(self, calls: Sequence[Sequence[Any]]) -> list[list[float]]:
        import numpy as np
        import torch

        model, _ = self._models.classifier(self._profile.model, self._profile.dtype)
        pixels, found = [each for call in calls for each in call], list[float]()
        several = model.config.problem_type == "multi_label_classification"
        with torch.inference_mode():
            for first in range(0, len(pixels), self._profile.batch):
                chunk = torch.from_numpy(np.stack(pixels[first : first + self._profile.batch]))
                logits = model(pixel_values=chunk.to(model.device, model.dtype)).logits.float()
                if several:
                    found += logits.sigmoid()[:, self._places].amax(1).tolist()
                else:
                    found += logits.softmax(1)[:, self._places].sum(1).tolist()
        answers = iter(found)
        return [[next(answers) for _ in call] for call in calls]


def labels(folder: Path) -> list[str]:
    """The labels of the classifier in a folder, by place. Raises ModelError."""
    config = folder / "config.json"
    named = read_json(config).get("id2label")
    if not isinstance(named, dict) or set(named) != set(map(str, range(len(named)))):
        raise ModelError(f"{config} names no labels (id2label): it is of no image classifier")
    return [str(named[str(place)]) for place in range(len(named))]


def check_labels(known: Sequence[str], profile: ClassifierGuardProfile) -> None:
    """Raise ModelError for labels of the profile that the classifier does not have."""
    if unknown := [name for name in profile.labels if name not in known]:
        raise ModelError(
            f"guard {profile.name!r}: {profile.model} has no label {unknown[0]!r}; it has: "
            f"{', '.join(known)}"
        )
