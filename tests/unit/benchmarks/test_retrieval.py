"""The benchmark of retrieval at a tiny size: its figures are there and can differ."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import retrieval
from benchmarks.retrieval.brand_accuracy import BrandAccuracy
from benchmarks.retrieval.chain import Chain
from benchmarks.retrieval.image_guidance import ImageGuidance
from benchmarks.retrieval.refinement import Refinement

WAYS = ("with", "without", "shuffled", "oracle", "held_out")
SWEEP = [{"strength": at / 5, "follows": at / 5, "keeps_shape": 1.0} for at in range(6)]

pytestmark = pytest.mark.slow


def chain(folder: Path, base: str) -> Chain:
    """A chain that renders in fewer steps."""
    quick = folder / "quick.toml"
    quick.write_text(f'extends = "{base}"\n[defaults]\nsteps = 8\n', encoding="utf-8")
    return Chain(folder, str(quick))


def test_looks_that_are_told_are_drawn_and_others_are_not(tmp_path: Path) -> None:
    figures = BrandAccuracy(chain(tmp_path, "shapes"), rows=4, seed=3).measure()
    for way in WAYS:
        assert 0 <= figures[f"won_{way}"] <= figures[f"accepted_{way}"] <= 1
    assert figures["won_oracle"] > figures["won_without"]
    assert figures["won_with"] > figures["won_shuffled"]
    assert figures["accuracy_copy"] >= 0.5
    assert figures["with_of_oracle"] == pytest.approx(
        figures["accuracy_with"] / figures["accuracy_oracle"]
    )


def test_facts_are_found_and_copies_thinned(tmp_path: Path) -> None:
    figures = retrieval.measure("fact_recall", tmp_path, rows=0, facts=40, seed=3)
    for way in ("hybrid", "dense", "bm25"):
        shares = [form[way] for form in figures["by_form"].values()]
        assert figures[f"recall_at_3_{way}"] == pytest.approx(sum(shares) / len(shares))
        assert 0.2 < figures[f"recall_at_3_{way}"] < 1
    assert figures["recall_at_3_hybrid"] > figures["recall_at_3_bm25"]
    assert figures["by_form"]["misspelled"]["bm25"] < figures["by_form"]["plain"]["bm25"]
    assert figures["duplicates_kept"] < figures["duplicates_kept_unthinned"]
    assert figures["recall_at_3_thinned"] >= figures["recall_at_3_unthinned"]


def test_a_floor_keeps_sources_from_rows_that_are_about_none(tmp_path: Path) -> None:
    figures = retrieval.measure("floor", tmp_path, rows=0, facts=40, seed=3)
    for kind in ("look", "brand", "everyday"):
        for name in ("passages", "images"):
            assert figures[f"wrong_{name}_{kind}_0"] == 1
            assert figures[f"wrong_{name}_{kind}"] < 0.4
    assert 0.5 < figures["floor_recall"] <= 1
    assert 0.5 < figures["floor_recall_images"] <= 1
    assert set(figures["floor_by_form"]) == {
        "plain", "capitals", "small", "possessive", "misspelled",
    }  # fmt: skip


def test_images_follow_their_collection_at_full_strength(tmp_path: Path) -> None:
    following = ImageGuidance(chain(tmp_path, "shapes"), rows=4, seed=3, strengths=(0, 1))
    figures = following.measure()
    first, last = figures["sweep"]
    assert (first["strength"], last["strength"]) == (0, 1)
    assert first["follows"] < last["follows"] == figures["follows_collection"]
    assert figures["keeps_shape"] > 0.5


def test_a_second_round_is_held_where_the_first_is_lost(tmp_path: Path) -> None:
    figures = Refinement(chain(tmp_path, "shapes-draft"), rows=8, seed=3, images=80).measure()
    assert 0 < figures["went_on"] < 1
    for way in ("one_round", "two_rounds"):
        assert figures[f"won_late_{way}"] <= figures[f"won_{way}"]


def test_the_program_prints_and_draws_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    measured = {
        "brand_accuracy": {"accuracy_with": 0.5},
        "fact_recall": {"by_form": {"plain": {"hybrid": 0.5}}},
        "floor": {"floor_by_form": {"plain": 0.5}},
        "image_guidance": {"sweep": SWEEP},
        "refinement": {"won_two_rounds": 0.5},
    }
    monkeypatch.setattr(retrieval, "measure", lambda part, *_: measured[part])
    plot = tmp_path / "reference_scale.svg"
    monkeypatch.setattr(sys, "argv", ["retrieval", "--json", "--plot", str(plot)])
    retrieval.main()
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == {key: value for part in measured.values() for key, value in part.items()}
    lines = ElementTree.parse(plot).findall("{*}g")
    assert [len(line.findall("{*}circle")) for line in lines] == [len(SWEEP), len(SWEEP)]


def test_a_parts_former_name_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retrieval, "measure", lambda part, *_: {part: 1.0})
    monkeypatch.setattr(sys, "argv", ["retrieval", "--json", "--only", "following", "fact_recall"])
    retrieval.main()
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == {"image_guidance": 1.0, "fact_recall": 1.0}
