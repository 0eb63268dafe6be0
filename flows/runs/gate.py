"""Calibration of the gate on the winners of a run: the threshold for a wanted precision, and with
labels the judges' weights.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from flows.runs.measured_jobs import of_each
from flows.runs.reviews import read_reviews
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import NothingToJudge, RunError
from pipeline.job import Brief, ImageArray, Job, Score
from pipeline.judging import gate as gates
from pipeline.judging.contrasts import Contrast, contrasts
from pipeline.judging.gate import LEAST, Fitted, Gate
from pipeline.media.image import decode
from pipeline.ports import Judge
from pipeline.profile import profile_of
from pipeline.record import KEPT, ImageRecord, Outcome, RunSpec
from pipeline.records.run_folder import RunFolder
from pipeline.run import judge_request
from pipeline.settings import Settings

BAND = (0.25, 0.75)
"""Quantiles of winners' scores between which a run's median is to be."""


@dataclass(frozen=True)
class Winner:
    """A row's winner and its score, of so many judged rivals, itself included."""

    outcome: Outcome
    job: Job
    brief: Brief
    image: ImageRecord
    score: Score
    rivals: int


@dataclass(frozen=True)
class Contrasted:
    """A winner's scores against briefs that it is wrong for, as many as it had rivals: those of one
    contest in which all candidates are wrong.
    """

    winner: Winner
    scores: Sequence[tuple[str, float]]

    @property
    def best(self) -> float:
        """The score of the contest's winner."""
        return max(score for _, score in self.scores)


def calibrate_gate(
    run: str, reviews: Path | None, precision: float, count: int, settings: Settings
) -> dict[str, Any]:
    """The threshold with which the accepted winners of a run are right with this precision, by the
    labels of a review file, or without one by contrasts to the briefs of `count` winners, which the
    run's judges see again. With labels and several judges also the panel that fits them best.

    Raises RunError where there are too few winners or labels, or no threshold is as precise;
    ModelError, without labels, where a model here is not the run's.
    """
    run_folder = open_run_folder(settings, run)
    spec = run_folder.spec()
    if reviews:
        return _by_labels(run_folder, spec, reviews, precision)
    return _by_contrasts(run_folder, spec, precision, count, settings)


def _by_labels(
    run_folder: RunFolder, spec: RunSpec, reviews: Path, precision: float
) -> dict[str, Any]:
    winners, right, left_out = _labelled(run_folder, reviews)
    chances = [each.score.calibrated for each in winners]
    found = gates.gate(chances, right, precision)
    area = gates.auc(chances, right)
    report = {
        "run": run_folder.run,
        "by": f"labels of {reviews.name}",
        **_contests(winners),
        "right": sum(right),
        **_figures(found, precision, "Wilson, 95%"),
        "auc": round(area, 4),
        **({"left_out": dict(left_out)} if left_out else {}),
    }
    labels = dict(zip((each.job.id for each in winners), right, strict=True))
    collections = _collections(
        winners,
        lambda some: gates.gate(
            [each.score.calibrated for each in some],
            [labels[each.job.id] for each in some],
            precision,
        ),
    )
    panel, fitted, gate = _panel(spec, winners, right, precision)
    better = fitted if fitted and gate and fitted.auc > area else None
    toml = _toml(winners, gate if better and gate else found, better)
    return report | collections | panel | {"toml": toml}


def _labelled(run_folder: RunFolder, path: Path) -> tuple[list[Winner], list[bool], Counter[str]]:
    """The reviewed winners with their labels, and how many reviews are of none, by reason."""
    reviews = read_reviews(path, run_folder.run)
    winners, right = list[Winner](), list[bool]()
    left_out = Counter({"of another run": reviews.elsewhere})
    recorded = 0
    for outcome in run_folder.records.outcomes(reviews.by_job):
        recorded, review = recorded + 1, reviews.by_job[outcome.job_id]
        if not (winner := _winner(outcome)):
            left_out["without a judged image"] += 1
        elif not winner.image.sha256.startswith(review.sha256):
            left_out["of an image that was replaced"] += 1
        else:
            winners.append(winner)
            right.append(review.right)
    left_out["without a record"] = len(reviews.by_job) - recorded
    left_out += Counter()  # drops the zeros
    if not winners:
        why = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
        raise RunError(f"{path} reviews no image of run {run_folder.run} ({why or 'it is empty'}).")
    return winners, right, left_out


def _panel(
    spec: RunSpec, winners: Sequence[Winner], right: Sequence[bool], precision: float
) -> tuple[dict[str, Any], Fitted | None, Gate | None]:
    """The report on the fitted panel, the panel, and its gate; nothing where there is one judge."""
    names = [judge.name for judge in profile_of(spec).judge]
    if len(names) < 2:
        return {}, None, None
    parts = [{part.judge: part.calibrated for part in each.score.parts} for each in winners]
    whole = [place for place, each in enumerate(parts) if each.keys() >= {*names}]
    labels = [right[place] for place in whole]
    try:
        fitted = gates.fit([{name: parts[at][name] for name in names} for at in whole], labels)
        gate = gates.gate(fitted.chances, labels, precision)
    except RunError as error:
        return {"panel": {"not_fitted": error.detail}}, None, None
    report = {
        "winners": len(whole),
        "weights": {name: round(weight, 4) for name, weight in fitted.weights.items()},
        "offset": round(fitted.offset, 4),
        "held_out_auc": round(fitted.auc, 4),
        **_figures(gate, precision, "Wilson, 95%"),
    }
    return {"panel": report}, fitted, gate


def _by_contrasts(
    run_folder: RunFolder, spec: RunSpec, precision: float, count: int, settings: Settings
) -> dict[str, Any]:
    winners = list(islice(_winners(run_folder), count))
    if not winners:
        raise RunError(f"Run {run_folder.run} has no winners yet.")
    contests = _contrasted(run_folder, spec, winners, settings)
    held = [each for each in contests if each]
    found, share = _gate_of(winners, held, precision)
    skipped = len(contests) - len(held)

    def of_some(some: Sequence[Winner]) -> Gate:
        ids = {each.job.id for each in some}
        own = [each for each in held if each.winner.job.id in ids]
        return _gate_of(some, own, precision)[0]

    return {
        "run": run_folder.run,
        "by": "contrasts",
        **_contests(winners),
        "contrasted": len(held),
        "wrong_share": round(share, 4),
        **_figures(found, precision, "bootstrap over rows, 95%"),
        "contrasts": list(_by_kind(held, found.threshold)),
        **({"left_out": {"without contrasts enough": skipped}} if skipped else {}),
        **_collections(winners, of_some),
        "toml": _toml(winners, found, None),
    }


def _gate_of(
    winners: Sequence[Winner], contests: Sequence[Contrasted], precision: float
) -> tuple[Gate, float]:
    chances = [each.score.calibrated for each in winners]
    return gates.gate_by_contrasts(chances, [each.best for each in contests], precision)


def _contrasted(
    run_folder: RunFolder, spec: RunSpec, winners: Sequence[Winner], settings: Settings
) -> list[Contrasted | None]:
    """A contest of wrong briefs for each winner of the better half, which is presumed right: the
    brief with a word changed may be what a wrong image shows. None where there are fewer contrasts
    than rivals, or nothing to judge.
    """
    against = {judge.against for judge in profile_of(spec).judge}
    with closing(Assembly(settings)) as assembly:
        ports = assembly.ports(spec)
        requests = [
            judge_request(
                each.job, assembly.embedded(spec, each.outcome.winners_context), each.brief, ports
            )
            for each in winners
        ]

        def hold(place: int) -> Contrasted | None:
            winner, others = winners[place], [*requests[:place], *requests[place + 1 :]]
            drawn = contrasts(requests[place], others, against, winner.rivals, place)
            (data,) = run_folder.records.images([winner.image])
            scores = list(_scored(ports.judge, decode(data), drawn))
            return Contrasted(winner, scores) if len(scores) == winner.rivals else None

        middle = median(each.score.calibrated for each in winners)
        better = [at for at, each in enumerate(winners) if each.score.calibrated >= middle]
        return of_each(better, hold)


def _scored(
    judge: Judge, image: ImageArray, drawn: Iterable[Contrast]
) -> Iterator[tuple[str, float]]:
    """Kind and score of each contrast that the judges have something to say of."""
    for each in drawn:
        with suppress(NothingToJudge):
            (score,) = judge.score([image], each.request)
            if score.valid:
                yield each.kind, score.calibrated


def _by_kind(contests: Sequence[Contrasted], threshold: float) -> Iterator[dict[str, Any]]:
    """For each kind of contrast how many were judged, and the share that the gate would accept."""
    kinds = defaultdict[str, list[bool]](list)
    for contest in contests:
        for kind, score in contest.scores:
            kinds[kind].append(score >= threshold)
    for kind, accepted in sorted(kinds.items()):
        share = round(sum(accepted) / len(accepted), 4)
        yield {"contrast": kind, "judged": len(accepted), "accepted": share}


def _winners(run_folder: RunFolder) -> Iterator[Winner]:
    """Winners of a run in the order of their jobs' ids, which are hashes: any number of them is a
    sample.
    """
    outcomes = run_folder.records.outcomes(run_folder.records.ids())
    return filter(None, map(_winner, outcomes))


def _winner(outcome: Outcome) -> Winner | None:
    scores = {each.index: each.score for each in outcome.candidates if each.score}
    score = None if outcome.winner is None else scores.get(outcome.winner)
    if outcome.status not in KEPT or not (
        outcome.job and outcome.brief and outcome.image and score
    ):
        return None
    return Winner(outcome, outcome.job, outcome.brief, outcome.image, score, len(scores))


def _contests(winners: Sequence[Winner]) -> dict[str, Any]:
    """The number of winners, of their rivals, and the modes of their contests."""
    rivals = [each.rivals for each in winners] or [0]
    return {
        "winners": len(winners),
        "candidates": {"least": min(rivals), "median": median(rivals), "most": max(rivals)},
        "contests": dict(Counter(each.job.contest for each in winners)),
    }


def _collections(
    winners: Sequence[Winner], gate: Callable[[Sequence[Winner]], Gate]
) -> dict[str, Any]:
    """The gate of each collection with winners enough, where there are several collections."""
    groups = defaultdict[str, list[Winner]](list)
    for each in winners:
        groups[each.job.collection].append(each)
    rows = list[dict[str, Any]]()
    for name, some in sorted(groups.items()) if len(groups) > 1 else ():
        row: dict[str, Any] = {"collection": name, "winners": len(some)}
        try:
            if len(some) < LEAST:
                # told in the row like the gate's own refusals
                raise RunError(f"fewer than {LEAST} winners")  # noqa: TRY301
            found = gate(some)
        except RunError as error:
            row |= dict.fromkeys(("threshold", "precision", "interval", "recall"))
            rows.append(row | {"problem": error.detail})
        else:
            figures: dict[str, Any] = {
                "threshold": found.threshold,
                "precision": round(found.precision, 4),
            }
            figures |= {"interval": _rounded(found.interval), "recall": round(found.recall, 4)}
            rows.append(row | figures | {"problem": ""})
    return {"by_collection": rows} if rows else {}


def _figures(found: Gate, wanted: float, interval: str) -> dict[str, Any]:
    return {
        "wanted": wanted,
        "threshold": found.threshold,
        "precision": round(found.precision, 4),
        "interval": _rounded(found.interval),
        "interval_by": interval,
        "recall": round(found.recall, 4),
        "accepted": found.accepted,
    }


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(end, 4) for end in interval]


def _toml(winners: Sequence[Winner], found: Gate, panel: Fitted | None) -> str:
    """The lines for a profile: the threshold, and the band and the weights that belong to it."""
    models = {each.job.model for each in winners}
    (model,) = models if len(models) == 1 else ("",)
    table = f"renderers.{json.dumps(model)}.defaults" if model else "defaults"
    scores = [each.score.calibrated for each in winners] if panel is None else panel.chances
    low, high = np.quantile(scores, BAND).tolist()
    lines = [f"[{table}]", f"threshold = {found.threshold:.5f}", "", "[panel]"]
    lines += [f"band = [{low:.3f}, {high:.3f}]"]
    if panel:
        lines += [f"offset = {panel.offset:.4f}"]
        for name, weight in panel.weights.items():
            lines += ["", "[[judge]]", f"name = {json.dumps(name)}", f"weight = {weight:.4f}"]
    return "\n".join(lines)
