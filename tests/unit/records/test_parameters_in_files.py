"""The readers of others find a stored image's parameters."""

import json
import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import piexif
import piexif.helper
import pytest
from PIL import Image
from sd_parsers import ParserManager
from sd_parsers.data import Generators

from pipeline.job import Brief, Job
from pipeline.media.image import ImageFormat
from pipeline.record import Outcome
from pipeline.records.parameters import parameters
from pipeline.records.run_folder import RunFolder
from pipeline.storage.folder import FolderStore

PROMPT = "a rødt circle, 赤い丸 – 🎈"

every_format = pytest.mark.parametrize("fmt", ["png", "webp", "jpeg"])


@pytest.fixture
def outcome(make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]) -> Outcome:
    return make_outcome(make_job(), brief=Brief(text="", prompt=PROMPT, negative="blur"))


@pytest.fixture
def committed(run_folder: RunFolder, outcome: Outcome, fmt: ImageFormat) -> bytes:
    """The file of an image that a run kept."""
    kept = RunFolder(run_folder.store, "demo", fmt).records.commit(
        outcome, np.zeros((64, 64, 3), np.float32)
    )
    assert kept.image
    return run_folder.blob(kept.image.path)


@every_format
def test_sd_parsers_reads_our_parameters_as_a1111s(committed: bytes) -> None:
    info = ParserManager().parse(BytesIO(committed))
    assert info is not None
    assert info.generator == Generators.AUTOMATIC1111
    sampler = info.samplers[0]
    assert [prompt.value for prompt in sampler.prompts] == [PROMPT]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["blur"]
    assert sampler.name == "Euler"
    assert sampler.parameters == {"cfg_scale": "4.0", "seed": "8", "steps": "20"}


@pytest.mark.parametrize("fmt", ["webp", "jpeg"])
def test_piexif_as_a1111_calls_it(
    committed: bytes, outcome: Outcome, run_folder: RunFolder
) -> None:
    block = Image.open(BytesIO(committed)).info["exif"]
    comment = piexif.load(block)["Exif"][piexif.ExifIFD.UserComment]
    renderer = run_folder.spec().profile["renderer"]
    assert piexif.helper.UserComment.load(comment) == parameters(outcome, renderer)


@every_format
@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_finds_the_file_valid_and_its_parameters(
    committed: bytes, fmt: str, store: FolderStore
) -> None:
    file = Path(store.address(f"x.{fmt}"))
    file.write_bytes(committed)
    told = subprocess.run(
        ["exiftool", "-json", "-a", "-validate", "-all", file], capture_output=True, check=True
    ).stdout
    assert b"Non-standard" not in told
    found = json.loads(told)[0]
    text = found["Parameters" if fmt == "png" else "UserComment"]
    assert text.startswith(f"{PROMPT}\nNegative prompt: blur\nSteps: 20, Sampler: Euler, ")
