"""Judges images by CLIP similarity, through open_clip.

Source: Hessel et al., CLIPScore (2021): the cosine between the embeddings of image and text.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pipeline import telemetry
from pipeline.job import ImageArray, Score
from pipeline.judging.calibration import calibration
from pipeline.judging.pieces import pieces
from pipeline.media.checks import problem
from pipeline.models import Models
from pipeline.models.batching import Batcher
from pipeline.models.tokenizers import fits
from pipeline.profile import JudgeProfile

TEXTS_KEPT = 1024


class Viewing(NamedTuple):
    """Preprocessed images [n, 3, side, side], and the text they are judged against."""

    pixels: torch.Tensor
    text: str


class ClipJudge:
    """The Judge port over an OpenCLIP model: the cosine of image and text, calibrated.

    A text longer than the model's context is cut at the ends of sentences, else of clauses; its
    embedding is the normalised mean of the pieces' embeddings. Images are preprocessed as for the
    model's training: most models see the middle square only.
    """

    def __init__(self, models: Models, profile: JudgeProfile) -> None:
        self._model, self._preprocess, self._tokenizer = models.clip(
            profile.model, "judge", profile.dtype
        )
        self._fits = partial(fits, self._tokenizer)
        self._calibration = calibration(profile, models.folder(profile.model, "judge"))
        self._device = models.device
        self._dtype = getattr(torch, profile.dtype)
        self._limit = profile.batch
        self._texts: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._batcher = Batcher(
            "judge",
            self._cosines,
            limit=profile.batch,
            size=lambda viewing: len(viewing.pixels),
            device_lock=models.device_lock,
        )

    def score(self, images: Sequence[ImageArray], text: str) -> Sequence[Score]:
        """One score per image, in order; the model does not see invalid images."""
        problems = [problem(image) for image in images]
        valid = [p for p, reason in zip(images, problems, strict=True) if not reason]
        cosines = iter(self._batcher(Viewing(self._pixels(valid), text)) if valid else [])
        scores = []
        for reason in problems:
            cosine = 0.0 if reason else next(cosines)
            if not math.isfinite(cosine):
                reason = "the judge's answer is not a number"
            if reason:
                scores.append(Score(raw=0, calibrated=0, valid=False, reason=reason))
            else:
                scores.append(Score(raw=cosine, calibrated=self._calibration.chance(cosine)))
        return scores

    def _pixels(self, images: Sequence[ImageArray]) -> torch.Tensor:
        """Preprocessed images, in 8 bits as the winner will be stored. Runs in the job's own
        thread.
        """
        scaled = (Image.fromarray((p.clip(0, 1) * 255).round().astype(np.uint8)) for p in images)
        return torch.stack([self._preprocess(image) for image in scaled])

    @torch.inference_mode()
    def _cosines(self, viewings: Sequence[Viewing]) -> list[list[float]]:
        """The cosines of each viewing's images with its text."""
        self._embed_texts({viewing.text for viewing in viewings})
        every = torch.cat([viewing.pixels for viewing in viewings])
        chunks = (chunk.to(self._device, self._dtype) for chunk in torch.split(every, self._limit))
        # unit vectors [images, width], on the processor
        seen = torch.cat([_unit(self._model.encode_image(c).float().cpu()) for c in chunks])
        shares = torch.split(seen, [len(viewing.pixels) for viewing in viewings])
        cosines = [
            (share @ self._texts[viewing.text]).tolist()
            for share, viewing in zip(shares, viewings, strict=True)
        ]
        while len(self._texts) > TEXTS_KEPT:
            self._texts.popitem(last=False)
        return cosines

    def _embed_texts(self, texts: set[str]) -> None:
        """Fill the cache with a unit vector [width] for each text, newest last."""
        for text in texts:
            if text in self._texts:
                self._texts.move_to_end(text)
        cut = {text: pieces(text, self._fits) for text in sorted(texts - self._texts.keys())}
        telemetry.texts("judge", len(texts) - len(cut), len(cut))
        if not cut:
            return
        every = [piece for parts in cut.values() for piece in parts]
        chunks = [every[first : first + self._limit] for first in range(0, len(every), self._limit)]
        embedded = torch.cat([self._embed_pieces(chunk) for chunk in chunks])
        shares = torch.split(embedded, [len(parts) for parts in cut.values()])
        for text, share in zip(cut, shares, strict=True):
            self._texts[text] = _unit(share.mean(0))

    def _embed_pieces(self, parts: Sequence[str]) -> torch.Tensor:
        tokens = self._tokenizer(list(parts)).to(self._device)
        return _unit(self._model.encode_text(tokens).float().cpu())


def _unit(vectors: Any) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
