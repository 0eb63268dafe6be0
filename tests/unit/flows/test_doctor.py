"""The doctor's word on the device's memory."""

from pathlib import Path

import pytest

from flows.stack.doctor import memory_needed
from pipeline.errors import ModelError
from pipeline.models import Models
from pipeline.settings import load_settings


def test_it_compares_the_weights_with_the_devices_memory(
    models_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(models=models_root, device="cpu")
    assert memory_needed(settings).startswith("the renderer's weights take 0.0 GB, and the device")
    monkeypatch.setattr(Models, "memory", lambda _: 1_000_000)
    with pytest.raises(ModelError, match=r"the device has 0\.0 GB: see renderer\.memory"):
        memory_needed(settings)
    profile = tmp_path / "server.toml"
    profile.write_text('extends = "shapes"\n[renderer]\nkind = "a1111"\n', encoding="utf-8")
    elsewhere = load_settings(models=models_root, device="cpu", profile=str(profile))
    assert memory_needed(elsewhere) == "no renderer on this device"
