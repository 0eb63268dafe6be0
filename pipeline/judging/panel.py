"""Several judges as one: their calibrated chances, combined as log-odds.

chance = sigmoid(Σ weight · logit(chance of a judge) + offset): the logarithmic opinion pool
(Genest and Zidek, "Combining Probability Distributions", 1986), or, with weights and offset fitted
on labels, logistic regression.
"""

import math
from collections.abc import Mapping, Sequence

from pipeline.errors import NothingToJudge
from pipeline.job import ImageArray, JudgeRequest, Score, ScorePart
from pipeline.ports import Judge
from pipeline.profile import JudgeProfile, PanelProfile
from pipeline.telemetry import notice

CERTAIN = 1e-4
"""Distance from 0 and 1 beyond which chances are taken as equal: a judge that is surer than that
outvotes all others.
"""


class Panel:
    """The Judge port over judges of any kind, each with its section of the profile.

    An image is invalid where any judge finds it so. A judge that has nothing to compare with is
    left out, the others take over its weight, and the job's record says so. Of one judge, with a
    weight of 1 and no offset, score and chance are its own.
    """

    def __init__(
        self, judges: Sequence[tuple[JudgeProfile, Judge]], profile: PanelProfile | None = None
    ) -> None:
        self._judges = {section.name: judge for section, judge in judges}
        self._weights = {
            section.name: 1 / len(judges) if section.weight is None else section.weight
            for section, _ in judges
        }
        self._offset = (profile or PanelProfile()).offset

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order, with a part for each judge. Raises NothingToJudge where no
        judge has anything to compare with.
        """
        scores, silent = dict[str, Sequence[Score]](), dict[str, str]()
        for name, judge in self._judges.items():
            try:
                scores[name] = judge.score(images, request)
            except NothingToJudge as error:
                silent[name] = error.detail
        if not scores:
            raise NothingToJudge("; ".join(f"{name}: {why}" for name, why in silent.items()))
        for name, why in silent.items():
            notice(f"the judge {name!r} has no part in the scores: {why}")
        return [
            self._joined({name: each[index] for name, each in scores.items()})
            for index in range(len(images))
        ]

    def _joined(self, scores: Mapping[str, Score]) -> Score:
        parts = tuple(
            part
            for name, score in scores.items()
            if score.valid
            for part in score.parts or [_part(name, score)]
        )
        if invalid := [score for score in scores.values() if not score.valid]:
            return invalid[0].model_copy(update={"parts": parts})
        odds = self._log_odds({name: score.calibrated for name, score in scores.items()})
        raw, chance = odds, 0.5 * (1 + math.tanh(odds / 2))
        if len(self._judges) == 1:
            (own,) = scores.values()
            raw = own.raw
            if (*self._weights.values(), self._offset) == (1, 0):
                chance = own.calibrated
        return Score(raw=raw, calibrated=chance, parts=parts)

    def _log_odds(self, chances: Mapping[str, float]) -> float:
        present = sum(self._weights[name] for name in chances)
        share = sum(self._weights.values()) / present if present else 0.0
        return self._offset + share * sum(
            self._weights[name] * _logit(chance) for name, chance in chances.items()
        )


def _part(name: str, score: Score) -> ScorePart:
    return ScorePart(judge=name, raw=score.raw, calibrated=score.calibrated)


def _logit(chance: float) -> float:
    held = min(max(chance, CERTAIN), 1 - CERTAIN)
    return math.log(held / (1 - held))
