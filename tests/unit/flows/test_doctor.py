"""The doctor's word on the device's memory."""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.stack.doctor import memory_needed
from pipeline.errors import ModelError
from pipeline.models import Models
from pipeline.settings import load_settings


def test_it_compares_the_weights_with_the_devices_memory(
    models_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(models=models_root, device="cpu")
    told = r"the renderer's weights take 0\.0 GB, the judges' 0\.0 GB, and the device has"
    assert re.match(told, memory_needed(settings))
    monkeypatch.setattr(Models, "memory", lambda _: 1_000_000)
    with pytest.raises(ModelError, match=r"the device has 0\.0 GB: see renderer\.memory"):
        memory_needed(settings)
    profile = tmp_path / "server.toml"
    profile.write_text('extends = "shapes"\n[renderer]\nkind = "a1111"\n', encoding="utf-8")
    elsewhere = load_settings(models=models_root, device="cpu", profile=str(profile))
    with pytest.raises(ModelError, match=r"no renderer on this device, the judges' 0\.0 GB"):
        memory_needed(elsewhere)
    monkeypatch.setattr(Models, "memory", lambda _: 1_000_000_000)
    judges = '[[judge]]\n[[judge]]\nname = "twin"\nmodel = "open_clip"\n'
    for dtype, wanted in (("float32", 1), ("float16", 1.5)):
        end = f'dtype = "{dtype}"\nslope = 1\noffset = 0\n'
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
