"""Several judges as one: their calibrated chances, combined as log-odds.

chance = sigmoid(Σ weight · logit(chance of a judge) + offset): the logarithmic opinion pool
(Genest and Zidek, "Combining Probability Distributions", 1986), or, with weights and offset fitted
on labels, logistic regression.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

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
    """The Judge port over judges of any kind, each with its table of the profile.

    An image is invalid where any judge finds it so. A judge that has nothing to compare with is
    left out, the others take over its weight, and the job's record says so. Of one judge, with a
    weight of 1 and no offset, score and chance are its own.

    A judge with `finalists` sees no previews, and of finished images the best ones by the judges
    before it; where none of the others has anything to compare with and a weight, it sees all.
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
        limits = {each.name: each.finalists for each, _ in judges if each.finalists}
        self._finalists = dict(sorted(limits.items(), key=lambda limit: -limit[1]))

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order, with a part for each judge that saw it. Raises
        NothingToJudge where no judge has anything to compare with.
        """
        hearing = _Hearing(images, request, self._judges)
        everything, cheap = range(len(images)), self._judges.keys() - self._finalists.keys()
        for name in self._judges:
            if name in cheap:
                hearing.ask(name, everything)
        if not any(self._weights[name] for name in cheap - hearing.silent.keys()):
            for name in self._finalists:
                hearing.ask(name, everything)
        elif not request.previews:
            self._hear_finalists(hearing)
        hearing.close(self._weights)
        return [self._joined(scores, hearing.names) for scores in hearing.scores]

    def _hear_finalists(self, hearing: "_Hearing") -> None:
        """Have each of the finalists' judges see the best images of those before it: first the best
        one, then of the others those that may still overtake it, and further ones while none of
        those that it saw is valid.
        """
        left, dear = hearing.valid(range(len(hearing.scores))), list(self._finalists)
        for place, name in enumerate(dear):
            later, limit = dear[place + 1 :], self._finalists[name]
            ranked = sorted(left, key=lambda index: -self._log_odds(hearing.chances(index)))
            seen, least = list[int](), -math.inf
            groups = [ranked[:1], ranked[1:limit]]
            groups += [ranked[at : at + limit] for at in range(limit, len(ranked), limit)]
            for group in groups:
                if hearing.valid(seen) and group is not groups[1]:
                    break
                rivals = [
                    index
                    for index in group
                    if self._log_odds(hearing.chances(index, [name, *later], 1)) >= least
                ]
                if rivals and not hearing.ask(name, rivals):
                    break
                seen += rivals
                bounds = [
                    self._log_odds(hearing.chances(index, later, 0))
                    for index in hearing.valid(seen)
                ]
                least = max(bounds, default=least)
            if name not in hearing.silent:
                left = hearing.valid(seen)

    def _joined(self, scores: Mapping[str, Score], asked: Collection[str]) -> Score:
        """The score of an image by the scores of those that saw it, of all that were asked."""
        parts = tuple(
            part
            for name in self._judges
            if (score := scores.get(name)) and score.valid
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
        return Score(raw=raw, calibrated=chance, final=scores.keys() >= {*asked}, parts=parts)

    def _log_odds(self, chances: Mapping[str, float]) -> float:
        present = sum(self._weights[name] for name in chances)
        share = sum(self._weights.values()) / present if present else 0.0
        return self._offset + share * sum(
            self._weights[name] * logit(chance) for name, chance in chances.items()
        )


class _Hearing:
    """The judges' scores of one call so far, by image and judge, and the reasons of those that have
    none.
    """

    def __init__(
        self, images: Sequence[ImageArray], request: JudgeRequest, judges: Mapping[str, Judge]
    ) -> None:
        self._images, self._request, self._judges = images, request, judges
        self.scores: list[dict[str, Score]] = [{} for _ in images]
        self.silent = dict[str, str]()

    @property
    def names(self) -> Collection[str]:
        """The judges that have something to compare with."""
        return self._judges.keys() - self.silent.keys()

    def ask(self, name: str, indices: Sequence[int]) -> bool:
        """Have a judge see images; False where it has nothing to compare them with."""
        try:
            scores = self._judges[name].score([self._images[at] for at in indices], self._request)
        except NothingToJudge as error:
            self.silent[name] = error.detail
            return False
        for at, score in zip(indices, scores, strict=True):
            self.scores[at][name] = score
        return True

    def valid(self, indices: Iterable[int]) -> list[int]:
        """The images among these that no judge has found invalid."""
        return [at for at in indices if all(each.valid for each in self.scores[at].values())]

    def chances(
        self, index: int, supposed: Iterable[str] = (), chance: float = 0
    ) -> dict[str, float]:
        """An image's chances by judge, with one that is supposed for some."""
        found = {name: score.calibrated for name, score in self.scores[index].items()}
        return found | dict.fromkeys(supposed, chance)

    def close(self, weights: Mapping[str, float]) -> None:
        """Say in the job's record who had nothing to compare with. Raises NothingToJudge where that
        is all whose chances weigh anything.
        """
        if not any(weights[name] for name in self.names):
            told = (f"{name}: {why}" for name, why in self.silent.items())
            raise NothingToJudge("; ".join(told))
        for name, why in self.silent.items():
            notice(f"the judge {name!r} has no part in the scores: {why}")


def _part(name: str, score: Score) -> ScorePart:
    return ScorePart(judge=name, raw=score.raw, calibrated=score.calibrated)


def logit(chance: float) -> float:
    """The log-odds of a chance, which counts as CERTAIN at least, and 1 - CERTAIN at most."""
    held = min(max(chance, CERTAIN), 1 - CERTAIN)
    return math.log(held / (1 - held))
