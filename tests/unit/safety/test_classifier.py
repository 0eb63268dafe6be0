"""An image classifier of transformers, from a folder, as a guard."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from pipeline.assemble.guards import open_guards
from pipeline.assemble.models import check_models, model_digests
from pipeline.assemble.stores import open_store
from pipeline.errors import Blocked, ModelError
from pipeline.job import ImageArray
from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.profile import ClassifierGuardProfile
from pipeline.safety.classifier import Classifier
from pipeline.settings import SHIPPED_MODELS, Settings, load_settings
from tests.harness import small_models

DARK, LIGHT, GREY = (np.full((48, 40, 3), level, np.float32) for level in (0.1, 0.9, 0.35))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    small_models.save_classifier(tmp_path / "lights")
    return tmp_path


def profile(**fields: object) -> ClassifierGuardProfile:
    return ClassifierGuardProfile(model="lights", **{"labels": ("dark",)} | fields)


def settings(root: Path, text: str) -> Settings:
    """Settings of a profile over the small models and the classifier beside them."""
    for each in SHIPPED_MODELS.iterdir():
        if not (root / each.name).exists():
            (root / each.name).symlink_to(each)
    path = root / "mine.toml"
    path.write_text(f'extends = "shapes"\n[[guard]]\nkind = "classifier"\nmodel = "lights"\n{text}')
    return load_settings(
        models=root, store=str(root / "out"), home=root / "home", profile=str(path)
    )


def test_its_chances_are_those_of_transformers(root: Path) -> None:
    images = [DARK, LIGHT, GREY, np.random.default_rng(0).random((64, 64, 3), np.float32)]
    model = AutoModelForImageClassification.from_pretrained(root / "lights")
    processor = AutoImageProcessor.from_pretrained(root / "lights", backend="pil")
    with torch.inference_mode():
        pixels = processor(images=[to_image(each) for each in images], return_tensors="pt")
        wanted = model(**pixels).logits.softmax(1)
    check = Classifier(Models(root, "cpu"), profile(batch=3))
    assert check.chances(images) == pytest.approx(wanted[:, 1].tolist(), abs=1e-5)
    both = Classifier(Models(root, "cpu"), profile(labels=("odd", "light")))
    assert both.chances(images) == pytest.approx(wanted[:, [0, 2]].sum(1).tolist(), abs=1e-5)
    assert check.chances([]) == []
    dark, light, *_ = check.chances(images)
    assert dark > 0.9 > 0.1 > light


def test_labels_that_do_not_exclude_each_other(root: Path) -> None:
    small_models.save_classifier(root / "tags", "multi_label_classification")
    many = ClassifierGuardProfile(model="tags", labels=("odd", "dark"))
    dark, light = Classifier(Models(root, "cpu"), many).chances([DARK, LIGHT])
    assert dark > 0.9 > 0.1 > light


def test_threads_get_their_own_answers(root: Path) -> None:
    check = Classifier(Models(root, "cpu"), profile(batch=4))
    calls: list[list[ImageArray]] = [[DARK], [LIGHT, DARK], [GREY] * 3, [LIGHT]] * 5
    alone = [check.chances(call) for call in calls]
    with ThreadPoolExecutor(10) as threads:
        for one, other in zip(alone, threads.map(check.chances, calls), strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_it_is_checked_and_hashed_like_other_models(root: Path) -> None:
    chosen = settings(root, 'labels = ["dark"]')
    before = model_digests(chosen, chosen.chosen_profile)
    assert "guard:classifier" in before
    weights = root / "lights" / "model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"classifier.bias": tensors["classifier.bias"] + 1}, weights)
    assert model_digests(chosen, chosen.chosen_profile) != before
    unknown = settings(root, 'labels = ["dark", "nsfw"]')
    with pytest.raises(
        ModelError, match=r"'classifier': lights has no label 'nsfw'; it has: light"
    ):
        check_models(unknown, unknown.chosen_profile)
    weights.rename(root / "lights" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"guard:classifier: .*is a pickle"):
        check_models(chosen, chosen.chosen_profile)


@pytest.mark.parametrize(
    ("file", "lack"), [("preprocessor_config.json", "preprocessor_config"), ("config.json", "no")]
)
def test_a_folder_that_lacks_a_file_is_refused(root: Path, file: str, lack: str) -> None:
    (root / "lights" / file).unlink()
    with pytest.raises(ModelError, match=lack):
        Classifier(Models(root, "cpu"), profile())


def test_a_model_without_labels_is_no_classifier(root: Path) -> None:
    path = root / "lights" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": None}))
    with pytest.raises(ModelError, match="names no labels"):
        Classifier(Models(root, "cpu"), profile())


@pytest.mark.parametrize("damage", ["lacks its head", "is not finite", "is gone"])
def test_a_classifier_that_cannot_answer_blocks(root: Path, damage: str) -> None:
    chosen = settings(root, 'labels = ["dark"]')
    models, store = Models(root, "cpu"), open_store(chosen)
    guards = open_guards(chosen.chosen_profile.guard, None, models, store, chosen)
    weights = root / "lights" / "model.safetensors"
    tensors = load_file(weights)
    match damage:
        case "lacks its head":
            save_file({k: v for k, v in tensors.items() if "classifier" not in k}, weights)
        case "is not finite":
            save_file(tensors | {"classifier.bias": torch.full((3,), torch.nan)}, weights)
        case "is gone":
            weights.unlink()
    with pytest.raises(Blocked, match="guard 'classifier' at output could not decide: "):
        guards.refusals([LIGHT])


def test_it_refuses_by_its_threshold(root: Path) -> None:
    chosen = settings(root, 'labels = ["dark"]\nname = "night"')
    models, store = Models(root, "cpu"), open_store(chosen)
    guards = open_guards(chosen.chosen_profile.guard, None, models, store, chosen)
    guards.load()
    reasons = guards.refusals([LIGHT, DARK])
    assert reasons[0] == ""
    assert reasons[1] == "guard 'night' at output: chance 1.00, threshold 0.5"


def as_onnx(root: Path, content: bytes) -> Path:
    """The file of an ONNX model in place of the classifier's own weights."""
    (root / "lights" / "model.safetensors").unlink()
    (root / "lights" / "onnx").mkdir()
    file = root / "lights" / "onnx" / "model.onnx"
    file.write_bytes(content)
    return file


def test_an_onnx_file_is_hashed_and_checked_before_a_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, file = settings(root, 'labels = ["dark"]'), as_onnx(root, b"graph")
    monkeypatch.setattr("pipeline.models.onnx.find_spec", lambda name: object())
    before = model_digests(chosen, chosen.chosen_profile)["guard:classifier"]
    file.write_bytes(b"other")
    assert model_digests(chosen, chosen.chosen_profile)["guard:classifier"] != before

    def problem(text: str = "") -> str:
        own = settings(root, f'labels = ["dark"]\n{text}')
        with pytest.raises(ModelError) as error:
            check_models(own, own.chosen_profile)
        return str(error.value)

    assert "which has its own precision: leave out dtype" in problem('dtype = "float16"')
    # as written for a tensor of which the field external_data says where it is
    file.write_bytes(b"graph j\x1c\x0a\x08location\x12\x10model.onnx_data\x00")
    assert "has its weights in other files" in problem()
    file.write_bytes(b"")
    assert "is empty" in problem()
    monkeypatch.setattr("pipeline.models.onnx.find_spec", lambda name: None)
    assert "pip install 'pressrun[onnx]'" in problem()


def test_safetensors_go_before_an_onnx_file(root: Path) -> None:
    (root / "lights" / "model.onnx").write_bytes(b"graph")
    dark, light = Classifier(Models(root, "cpu"), profile()).chances([DARK, LIGHT])
    assert dark > 0.9 > 0.1 > light
