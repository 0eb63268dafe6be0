"""The chance that an image has one of some labels, told by an image classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.job import ImageArray
from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.models.onnx import onnx_file, onnx_settings
from pipeline.models.safetensors import read_json
from pipeline.profile import ClassifierGuardProfile


class Classifier:
    """An image classifier of transformers, or in an ONNX file. Raises ModelError for labels that it
    does not have.
    """

    def __init__(self, models: Models, profile: ClassifierGuardProfile) -> None:
        self._models, self._profile = models, profile
        folder = models.folder(profile.model, "guard")
        names = check_classifier(folder, profile)
        several = read_json(folder / "config.json").get("problem_type")
        self._several, self._labels = several == "multi_label_classification", len(names)
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
        model, _ = self._models.classifier(self._profile.model, self._profile.dtype)
        pixels, found = [each for call in calls for each in call], list[float]()
        for first in range(0, len(pixels), self._profile.batch):
            logits = model(np.stack(pixels[first : first + self._profile.batch]))
            if logits.shape[1:] != (self._labels,):
                raise ValueError(f"answers of shape {logits.shape[1:]} for {self._labels} labels")
            if self._several:
                found += (0.5 * (1 + np.tanh(logits[:, self._places] / 2))).max(1).tolist()
            else:
                odds = np.exp(logits - logits.max(1, keepdims=True))
                found += (odds[:, self._places].sum(1) / odds.sum(1)).tolist()
        answers = iter(found)
        return [[next(answers) for _ in call] for call in calls]


def check_classifier(folder: Path, profile: ClassifierGuardProfile) -> list[str]:
    """The labels of the classifier in a folder, by place. Raises ModelError where it lacks one of
    the profile's, or is an ONNX file that cannot be run as the profile says.
    """
    config = folder / "config.json"
    named = read_json(config).get("id2label")
    if not isinstance(named, dict) or set(named) != set(map(str, range(len(named)))):
        raise ModelError(f"{config} names no labels (id2label): it is of no image classifier")
    known = [str(named[str(place)]) for place in range(len(named))]
    if unknown := [name for name in profile.labels if name not in known]:
        raise ModelError(
            f"guard {profile.name!r}: {profile.model} has no label {unknown[0]!r}; it has: "
            f"{', '.join(known)}"
        )
    if onnx_file(folder):
        onnx_settings(folder)
        if profile.dtype != "float32":
            raise ModelError(
                f"guard {profile.name!r}: {profile.model} is an ONNX file, which has its own "
                "precision: leave out dtype"
            )
    return known
