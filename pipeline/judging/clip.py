"""Judges images by CLIP similarity: the cosine of image and text, calibrated.

Source: Hessel et al., CLIPScore (2021): the cosine between the embeddings of image and text.
"""

import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cachetools import LRUCache

from pipeline import telemetry
from pipeline.errors import ConfigError
from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.judging.logistic import Calibration, scores_of
from pipeline.models import Models
from pipeline.models.clip import Clip, Vectors, unit
from pipeline.profile import ClipJudgeProfile

TEXTS_KEPT = 1024
FILE = "calibration.json"
CUTS = (
    re.compile(r"(?<=[.!?])\s+|\n+"),
    re.compile(r"(?<=[;:,])\s+"),
    re.compile(r"\s+"),
    re.compile(r"(?<=.)(?=.)"),
)
"""Places to cut, best first: sentences, clauses, words, and characters as a last resort."""


class ClipJudge:
    """The Judge port over a CLIP or SigLIP, of OpenCLIP or of transformers.

    A text longer than the model's context is cut at the ends of sentences, else of clauses; its
    embedding is the normalised mean of the pieces' embeddings.
    """

    def __init__(self, models: Models, profile: ClipJudgeProfile) -> None:
        self._clip = Clip(models, profile.model, "judge", dtype=profile.dtype, batch=profile.batch)
        self._clip.load()
        self._calibration = calibration(profile, models.folder(profile.model, "judge"))
        self._against = profile.against
        self._texts: LRUCache[str, Vectors] = LRUCache(TEXTS_KEPT)
        self._lock = threading.Lock()

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order; the model does not see invalid images."""
        text = request.words(self._against)
        return scores_of(images, lambda valid: self._cosines(valid, text), self._calibration)

    def _cosines(self, images: Sequence[ImageArray], text: str) -> list[float]:
        with self._lock:
            known = self._texts.get(text)
        telemetry.texts("judge", int(known is not None), int(known is None))
        cut = pieces(text, self._clip.reads_whole) if known is None else []
        # the text goes along in the images' call
        read, seen = self._clip.encode(cut, images)
        if known is None:
            known = unit(unit(read).mean(0))
            with self._lock:
                self._texts[text] = known
        cosines: list[float] = (unit(seen) @ known).tolist()
        return cosines


def calibration(profile: ClipJudgeProfile, folder: Path, whose: str = "judge") -> Calibration:
    """The profile's slope and offset; one that it lacks is that in the model's folder. `whose` is
    the kind of the profile's section. Raises ConfigError.
    """
    given = {"slope": profile.slope, "offset": profile.offset}
    missing = [name for name, number in given.items() if number is None]
    path = folder / FILE
    if missing and not path.is_file():
        raise ConfigError(
            f"set {' and '.join(missing)} of the {whose} {profile.name!r} in the profile: there is"
            f" no {path}"
        )
    try:
        held = json.loads(path.read_bytes()) if missing else {}
        slope, offset = (
            float(held[name]) if number is None else number for name, number in given.items()
        )
        return Calibration(slope, offset)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{path} must hold the numbers slope and offset ({error!r})") from error


def pieces(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in pieces that each fit, cut at the best places; at least one.

    A single character that doesn't fit is returned as it is.
    """
    return _cut(text.strip(), fits, 0)


def _cut(text: str, fits: Callable[[str], bool], level: int) -> list[str]:
    if level == len(CUTS) or fits(text):
        return [text]
    parts = [part for part in CUTS[level].split(text) if part]
    joint = "" if level == len(CUTS) - 1 else " "
    # neighbours are joined while they fit together
    packed = parts[:1]
    for part in parts[1:]:
        joined = packed[-1] + joint + part
        if fits(joined):
            packed[-1] = joined
        else:
            packed.append(part)
    return [piece for part in packed for piece in _cut(part, fits, level + 1)]
