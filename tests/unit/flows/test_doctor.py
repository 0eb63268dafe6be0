"""The doctor's word on the device's memory."""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.stack.doctor import examine, memory_needed
from pipeline.errors import ModelError
from pipeline.models import Models
from pipeline.settings import load_settings


def test_it_compares_the_weights_with_the_devices_memory(
    models_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(models=models_root, device="cpu")
    told = r"the renderer's weights take 0\.0 GB, all other models' 0\.0 GB, and the device has"
    assert re.match(told, memory_needed(settings))
    monkeypatch.setattr(Models, "memory", lambda _: 1_000_000)
    with pytest.raises(ModelError, match=r"the device has 0\.0 GB: see renderer\.memory"):
        memory_needed(settings)
    profile = tmp_path / "server.toml"
    profile.write_text('extends = "shapes"\n[renderer]\nkind = "a1111"\n', encoding="utf-8")
    elsewhere = load_settings(models=models_root, device="cpu", profile=str(profile))
    with pytest.raises(ModelError, match=r"no renderer on this device, all other models' 0\.0 GB"):
        memory_needed(elsewhere)
    monkeypatch.setattr(Models, "memory", lambda _: 1_000_000_000)
    judges = '[[judge]]\n[[judge]]\nname = "twin"\nmodel = "open_clip"\n'
    for dtype, wanted in (("float32", 1), ("float16", 1.5)):
        end = f'dtype = "{dtype}"\nslope = 1\noffset = 0\n[writer]\nkind = "template"\n'
        profile.write_text(f'extends = "shapes"\n{judges}{end}', encoding="utf-8")
        sizes = list[int]()
        size = Models.size

        def counted(self: Models, *asked: Any, size: Any = size, sizes: Any = sizes) -> int:
            sizes.append(size(self, *asked))
            return sizes[-1]

        with monkeypatch.context() as patched:
            patched.setattr(Models, "size", counted)
            memory_needed(load_settings(models=models_root, device="cpu", profile=str(profile)))
        assert sum(sizes) == wanted * max(sizes), "models that are loaded once are counted once"
        assert max(sizes) > 1_000_000


CONCEPT = '[[guard]]\nkind = "concept"\nconcept = "a star"\n'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", [("open_clip", "float32")]),
        (CONCEPT, [("open_clip", "float32")]),
        (
            '[writer]\nkind = "local"\ndtype = "bfloat16"\n',
            [("open_clip", "float32"), ("writer", "bfloat16")],
        ),
        (
            '[retrieval]\nembedding = "texts"\n[retrieval.collections.theirs]\n'
            'written_by = "langchain"\nembedding = "theirs"\n',
            [("open_clip", "float32"), ("texts", "float32"), ("theirs", "float32")],
        ),
        (
            '[[judge]]\n[[judge]]\nkind = "questions"\nname = "asked"\nmodel = "sees"\n',
            [("open_clip", "float32"), ("sees", "float32")],
        ),
        (
            f'[[judge]]\ndtype = "float16"\n{CONCEPT}',
            [("open_clip", "float16"), ("open_clip", "float32")],
        ),
        (
            f'[[judge]]\ndtype = "float16"\n{CONCEPT}dtype = "float32"\n',
            [("open_clip", "float16"), ("open_clip", "float32")],
        ),
        (
            f'{CONCEPT}model = "other"\n[[guard]]\nkind = "classifier"\nmodel = "c"\n'
            'labels = ["x"]\n',
            [("c", "float32"), ("open_clip", "float32"), ("other", "float32")],
        ),
        (
            '[retrieval]\nimage_encoder = "sees"\n[[judge]]\n[[judge]]\nkind = "reference"\n'
            "slope = 1\noffset = 0\n",
            [("open_clip", "float32"), ("sees", "float32")],
        ),
    ],
)
def test_each_model_beside_the_renderers_is_counted_once(
    models_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    wanted: list[tuple[str, str]],
) -> None:
    asked = list[tuple[str, str]]()

    def size(self: Models, reference: str, role: str, dtype: str) -> int:
        asked.append((reference, dtype))
        return 0

    monkeypatch.setattr(Models, "size", size)
    path = tmp_path / "guarded.toml"
    server = "" if "[writer]" in text else '[writer]\nkind = "template"\n'
    path.write_text(f'extends = "shapes"\n{server}{text}', encoding="utf-8")
    memory_needed(load_settings(models=models_root, device="cpu", profile=str(path)))
    assert sorted(asked) == wanted


def test_the_largest_of_several_renderers_is_named(
    models_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "two.toml"
    halved = '[renderers.small]\nkind = "diffusers"\nmodel = "diffusion"\ndtype = "float16"\n'
    profile.write_text(f'extends = "shapes"\n{halved}', encoding="utf-8")
    settings = load_settings(models=models_root, device="cpu", profile=str(profile))
    assert memory_needed(settings).startswith("the weights of renderer, the largest renderer, take")
    profile.write_text(
        f'extends = "shapes"\n[renderer]\ndtype = "float16"\n'
        f"{halved.replace('float16', 'float32').replace('small', 'large')}",
        encoding="utf-8",
    )
    settings = load_settings(models=models_root, device="cpu", profile=str(profile))
    assert "the weights of renderers.large, the largest renderer, take" in memory_needed(settings)
    monkeypatch.setattr(Models, "memory", lambda _: 1_000_000)
    with pytest.raises(ModelError, match=r"see renderers\.large\.memory"):
        memory_needed(settings)
    monkeypatch.setattr(Models, "offloaded", lambda _, section: section.dtype == "float32")
    monkeypatch.setattr(Models, "memory", lambda _: 1_000_000_000)
    assert "layers of renderers.large lie in the host's memory" in memory_needed(settings)


def test_it_finds_the_folders_of_weights(models_root: Path, tmp_path: Path) -> None:
    def told(text: str) -> str:
        profile = tmp_path / "mine.toml"
        profile.write_text(f'extends = "shapes"\n{text}', encoding="utf-8")
        where = {"home": tmp_path / "home", "store": str(tmp_path / "out")}
        settings = load_settings(models=models_root, device="cpu", profile=str(profile), **where)
        return str(examine(settings)["weights"])

    assert told("") == "2 in renderer.loras"
    other = '[renderers.other]\nkind = "diffusers"\nmodel = "diffusion"\n'
    assert told(f'{other}embeddings = "loras"\n').endswith(", 2 in renderers.other.embeddings")
    assert told('[renderer]\nloras = ""\n') == "no folder of LoRAs or embeddings is named"
    missing = told('[renderer]\nloras = "gone"\n')
    assert missing.startswith("PROBLEM: ")
    assert "there is no folder of LoRAs 'gone'" in missing
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "one.safetensors").symlink_to(tmp_path / "gone")
    broken = told(f'[renderer]\nloras = "{tmp_path / "broken"}"\n')
    assert re.match("PROBLEM: .*cannot be read: No such file", broken)
