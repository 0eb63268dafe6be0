"""The text that A1111 reads back from an image."""

import json
import re
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from pipeline.job import Brief, InputImage, Job, Lora, TextualInversion
from pipeline.jobfile.values import FIELD_LIMIT
from pipeline.media.image import EXIF_CHARACTERS
from pipeline.profile import JobDefaults
from pipeline.record import Outcome, Refinement
from pipeline.records.parameters import parameters
from pipeline.writing.reply import PROMPT_LIMIT

# parse_generation_parameters in AUTOMATIC1111's modules/infotext_utils.py
SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def read_back(text: str) -> dict[str, str]:
    """What A1111 makes of the text: prompt and negative prompt, then the settings."""
    *lines, last = text.strip().split("\n")
    prompt, negative, found = list[str](), list[str](), dict[str, str]()
    if len(SETTING.findall(last)) < 3:
        lines, last = [*lines, last], ""
    for line in lines:
        if line.startswith("Negative prompt:"):
            negative.append(line[16:].strip())
        else:
            prompt.append(line)
    for name, value in SETTING.findall(last):
        found[name] = json.loads(value) if value.startswith('"') else value.strip()
    return found | {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}


def test_a1111_reads_it_back(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    renderer = {"model": "diffusion", "scheduler": "EulerDiscreteScheduler"}
    text = parameters(make_outcome(make_job()), renderer)
    assert text == (
        "a red circle\n"
        "Negative prompt: blur\n"
        "Steps: 20, Sampler: Euler, CFG scale: 4.0, Seed: 8, Size: 64x64,"
        " Model hash: 0123456789, Model: diffusion, Version: pressrun 0.1.0"
    )
    assert read_back(text) == {
        "Prompt": "a red circle",
        "Negative prompt": "blur",
        "Steps": "20",
        "Sampler": "Euler",
        "CFG scale": "4.0",
        "Seed": "8",
        "Size": "64x64",
        "Model hash": "0123456789",
        "Model": "diffusion",
        "Version": "pressrun 0.1.0",
    }


@pytest.mark.parametrize(
    ("scheduler", "settings", "sampler", "schedule"),
    [
        ("EulerAncestralDiscreteScheduler", {}, "Euler a", None),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "DPM++ 2M", "Karras"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++"},
            "DPM++ 2M SDE",
            None,
        ),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "Euler", "SGM Uniform"),
        ("", {"use_karras_sigmas": False}, None, None),
    ],
)
def test_sampler_and_schedule_have_a1111s_names(
    scheduler: str,
    settings: dict[str, object],
    sampler: str | None,
    schedule: str | None,
    make_job: Callable[..., Job],
    make_outcome: Callable[..., Outcome],
) -> None:
    renderer = {"scheduler": scheduler, "scheduler_settings": settings}
    found = read_back(parameters(make_outcome(make_job()), renderer))
    assert (found.get("Sampler"), found.get("Schedule type")) == (sampler, schedule)


def test_a_prompt_cannot_pass_for_settings(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    hostile = "circle\nNegative prompt: none\r\nSteps: 1, Seed: 99, Size: 1x1\u2028x\vy"
    brief = Brief(text="", prompt=hostile, negative=hostile)
    found = read_back(parameters(make_outcome(make_job(), brief=brief)))
    assert found["Prompt"] == " ".join(hostile.split())
    assert found["Negative prompt"] == " ".join(hostile.split())
    assert (found["Seed"], found["Steps"]) == ("8", "20")


@pytest.mark.parametrize("model", ["hub:owner/name", "a, b", 'with "marks", and more'])
def test_a_models_name_may_hold_any_sign(
    model: str, make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    found = read_back(parameters(make_outcome(make_job()), {"model": model}))
    assert found["Model"] == model
    assert found["Version"] == "pressrun 0.1.0"


def test_the_strength_of_an_edit_is_told_for_its_own_winner(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    image = InputImage(path="candidate 0", sha256="a" * 64, width=64, height=64)
    edited = Refinement(kind="edited", missing=("Red?",), image=image, first=1)
    outcome = make_outcome(make_job(edit_strength=0.6), refinements=(edited,))
    assert read_back(parameters(outcome))["Denoising strength"] == "0.6"
    assert "Denoising" not in parameters(outcome.model_copy(update={"winner": 0}))


def test_what_is_not_known_is_left_out(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    brief = Brief(text="", prompt="a red circle")
    text = parameters(make_outcome(make_job(), brief=brief, models={}))
    assert "Negative" not in text
    assert "Sampler" not in text
    assert "Model" not in text


def test_a_row_that_was_not_rendered_has_none(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    assert parameters(make_outcome(make_job(), brief=None)) == ""


def test_no_jobs_parameters_are_longer_than_what_is_kept_of_them(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    defaults = {"width": 64, "height": 64, "steps": 1, "guidance": 1}
    with pytest.raises(ValidationError, match="negative"):
        JobDefaults.model_validate(defaults | {"negative": "x" * (FIELD_LIMIT + 1)})
    brief = Brief(text="a", prompt="🔴" * PROMPT_LIMIT, negative="x" * FIELD_LIMIT)
    text = parameters(make_outcome(make_job(), brief=brief), {"model": "m" * 4096})
    assert len(text) < EXIF_CHARACTERS


def test_a_controlnet_is_written_as_its_extension_writes_it(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    image = InputImage(path="a, b.png", sha256="ab" * 32, width=9, height=9)
    job = make_job(control="edges", control_image=image, control_scale=0.5, control_until=0.75)
    outcome = make_outcome(job).model_copy(update={"models": {"control:edges": "cd" * 32}})
    renderer = {"controls": {"edges": {"model": "org/a:b,c", "preprocessor": "canny"}}}
    unit = read_back(parameters(outcome, renderer))["ControlNet 0"]
    # parse_unit in sd-webui-controlnet's scripts/infotext.py
    assert dict(item.strip().split(": ") for item in unit.split(",")) == {
        "Module": "canny",
        "Model": "org/a b c [cdcdcdcd]",
        "Weight": "0.5",
        "Resize Mode": "Crop and Resize",
        "Guidance Start": "0.0",
        "Guidance End": "0.75",
        "Pixel Perfect": "True",
        "Control Mode": "Balanced",
    }
    assert "ControlNet 0" not in read_back(parameters(make_outcome(make_job())))


def test_loras_are_written_as_a1111_writes_them(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    loras = (Lora(name="ink", weight=0.5, digest="ab" * 32), Lora(name="b c", digest="cd" * 32))
    found = read_back(parameters(make_outcome(make_job(loras=loras))))
    assert found["Prompt"] == "a red circle <lora:ink:0.5> <lora:b c:1>"
    assert found["Lora hashes"] == "ink: abababababab, b c: cdcdcdcdcdcd"


def test_embeddings_are_named_as_a1111_names_them(
    make_job: Callable[..., Job], make_outcome: Callable[..., Outcome]
) -> None:
    embeddings = (TextualInversion(name="circle", digest="ab" * 32),)
    found = read_back(parameters(make_outcome(make_job(embeddings=embeddings))))
    assert (found["Prompt"], found["TI hashes"]) == ("a red circle", "circle: abababababab")
