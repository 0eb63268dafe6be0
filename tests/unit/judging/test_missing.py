from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples.shapes import world
from pipeline.judging.clip import ClipJudge
from pipeline.judging.contest import PARTS, missing_phrases, parts
from pipeline.profile import Profile
from tests.harness import small_models
from tests.harness.jobs import request_of


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a red circle", ["a red circle"]),
        ("a cup at the top on a table", ["a cup", " at the top", " on a table"]),
        ("a shoe, with laces and a sole; soft light.", ["a shoe", ", with laces", " and a sole",
                                                          "; soft light."]),
        ("iron and insides", ["iron", " and insides"]),
        (", , and", [", , and"]),
        ("", [""]),
    ],
)  # fmt: skip
def test_a_caption_falls_into_phrases(text: str, wanted: list[str]) -> None:
    assert parts(text) == wanted
    assert "".join(parts(text)) == text


def test_what_keeps_an_image_from_passing_is_lacking() -> None:
    def passes(text: str) -> bool:
        return "laces" not in text

    assert missing_phrases("a shoe, with laces, on a table.", passes) == ("with laces",)
    assert missing_phrases("with laces, a shoe", passes) == ("with laces",)


def test_without_a_phrase_to_blame_the_whole_text_is_missing() -> None:
    text = "a shoe with laces on a table"
    assert missing_phrases(text, lambda _: False) == (text,)
    assert missing_phrases("shoe", lambda _: True) == ("shoe",)
    assert missing_phrases(text, lambda text: "shoe" in text and len(text.split()) < 6) == (
        "with laces",
        "on a table",
    )


def test_a_long_text_costs_no_more_than_its_first_parts() -> None:
    asked = list[str]()
    missing_phrases(", ".join("abcdefghijklmnopqrstuvwxyz"), lambda text: bool(asked.append(text)))
    assert len(asked) == PARTS


def test_the_small_judge_tells_a_wrong_background_from_a_wrong_shape(models_root: Path) -> None:
    judge = ClipJudge(small_models.shipped(models_root), Profile.load("shapes").judge[0])
    rng, told = np.random.default_rng(0), {"background": 0, "shape": 0}
    for _ in range(20):
        scene = world.sample_scene(rng, two=0)
        text, thing = world.prompt(scene), scene.things[0]
        dark = replace(scene, background="black" if scene.background != "black" else "white")
        other = replace(thing, shape="star" if thing.shape != "star" else "circle")
        for what, wrong in (("background", dark), ("shape", replace(scene, things=(other,)))):
            image = world.draw(wrong, rng).astype(np.float32) / np.float32(255)
            missed = missing_phrases(
                text,
                lambda t, p=image: judge.score([p], request_of(t))[0].calibrated >= 0.5,
            )
            is_background = missed == (f"on a {scene.background} background",)
            told[what] += is_background == (what == "background")
    assert told["background"] >= 15
    assert told["shape"] >= 18
