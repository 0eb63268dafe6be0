"""The gate's figures, on contests whose truth is known."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import gate
from benchmarks.gate import CANDIDATES, Contests, Winners
from examples.shapes import world


def contests(count: int, blobs: float, seed: int = 0) -> Contests:
    """The panel's chances are right; CLIP's are too, but for a share of blobs that it likes.

    Contrasts to the better half get the chances of wrong candidates.
    """
    rng = np.random.default_rng(seed)
    chance = rng.beta(0.3, 0.3, (count, CANDIDATES))
    right = rng.random(chance.shape) < chance
    fooled = np.where(rng.random(chance.shape) < blobs, rng.random(chance.shape), chance)
    wrong = rng.beta(0.3, 1.3, chance.shape).max(1)
    wrong[chance.max(1) < np.median(chance.max(1))] = np.nan
    return Contests(fooled, chance, right, np.ones_like(right), wrong)


def test_a_winner_is_the_best_of_its_contest_and_counts_where_umpires_agree() -> None:
    one = Contests(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[0.7, 0.6], [0.2, 0.3]]),
                   np.array([[True, False], [False, True]]), np.array([[True, False], [True] * 2]),
                   np.array([0.1, np.nan]))  # fmt: skip
    by_clip, by_panel = one.winners(one.clip), one.winners(one.panel)
    assert (by_clip.scores.tolist(), by_clip.right.tolist()) == ([0.8], [False])
    assert (by_panel.scores.tolist(), by_panel.right.tolist()) == ([0.7, 0.3], [True, True])


def test_the_labelled_threshold_is_the_lowest_that_is_right_enough() -> None:
    scores = np.linspace(1, 0, 101)
    known = Winners(scores, scores > 0.4, scores > 0.4, scores)
    level = gate.labelled(known)
    precision, recall = gate.shares(known, level)
    assert precision >= gate.WANTED > gate.shares(known, level - 0.02)[0]
    assert recall == 1


def test_no_threshold_accepts_anything_where_all_are_wrong() -> None:
    scores = np.linspace(0, 1, 100)
    known = Winners(scores, scores > 2, scores >= 0, scores)
    assert gate.shares(known, gate.labelled(known)) == (1.0, 0.0)
    assert gate.label_free(known) > 1


def test_right_chances_need_no_labels_and_a_fooled_judge_is_less_precise() -> None:
    figures = gate.compared(contests(1500, blobs=0.3), contests(100, 0.3, seed=1))
    assert figures["precision"] == pytest.approx(gate.WANTED, abs=0.03)
    assert figures["label_free_gap"] < 0.05
    assert figures["clip_precision"] < figures["precision"] - 0.02
    assert figures["clip_winners_right"] < figures["winners_right"]


def test_candidates_are_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def rendered(pipe: object, prompts: list[str], seed: int) -> np.ndarray:
        calls.append(seed)
        return np.full((len(prompts), world.PIXELS, world.PIXELS, 3), len(calls), np.uint8)

    monkeypatch.setattr(gate, "render", rendered)
    monkeypatch.setattr(gate, "_pipeline", lambda unet: object())
    count = gate.TOGETHER + 1
    first = list(gate.candidates(tmp_path, "draft-unet", count, 5))
    again = list(gate.candidates(tmp_path, "draft-unet", count, 5))
    assert calls == [5, 6]
    for (images, prompts), (kept, same) in zip(first, again, strict=True):
        assert np.array_equal(images, kept)
        assert prompts == same
        assert len(set(prompts[:CANDIDATES])) == 1
    assert [len(world.parse(p[0])["things"]) for _, p in first] == [1, 1]
    list(gate.candidates(tmp_path, "", 1, 5))
    assert calls == [5, 6, 5]
