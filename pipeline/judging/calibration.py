"""Calibration of cosines to probabilities: logistic regression with one slope and one offset."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.profile import JudgeProfile

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """chance = sigmoid(slope · cosine + offset)."""

    slope: float
    offset: float

    def chance(self, cosine: float) -> float:
        """The probability, 0..1, that an image with this cosine shows its text."""
        return 0.5 * (1 + math.tanh((self.slope * cosine + self.offset) / 2))


def calibration(profile: JudgeProfile, folder: Path) -> Calibration:
    """The profile's calibration, or else that in the model's folder. Raises ConfigError."""
    if profile.slope is not None and profile.offset is not None:
        return Calibration(profile.slope, profile.offset)
    path = folder / FILE
    if not path.is_file():
        raise ConfigError(f"set judge.slope and judge.offset in the profile: there is no {path}")
    try:
        held = json.loads(path.read_bytes())
        return Calibration(float(held["slope"]), float(held["offset"]))
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{path} must hold the numbers slope and offset ({error!r})") from error
