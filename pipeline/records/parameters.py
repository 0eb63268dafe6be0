"""A record as the text that A1111 and similar tools write into images and read back.

The form is that of `create_infotext` and `parse_generation_parameters` in
AUTOMATIC1111/stable-diffusion-webui, modules/processing.py and infotext_utils.py.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.record import Outcome

_SAMPLERS = {
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSDEScheduler": "DPM++ SDE",
    "HeunDiscreteScheduler": "Heun",
    "LMSDiscreteScheduler": "LMS",
    "UniPCMultistepScheduler": "UniPC",
}


def parameters(outcome: Outcome, renderer: Mapping[str, Any] | None = None) -> str:
    """Prompt, negative prompt and settings of the winner; empty without a job and a brief.

    `renderer` is the section of the job's renderer, with the model's name and its scheduler.
    """
    job, brief, renderer = outcome.job, outcome.brief, renderer or {}
    if job is None or brief is None:
        return ""
    tags = (f"<lora:{lora.name}:{lora.weight:g}>" for lora in job.loras)
    lines = [" ".join([_one_line(brief.prompt), *tags])]
    if negative := _one_line(brief.negative):
        lines.append(f"Negative prompt: {negative}")
    scheduler = str(renderer.get("scheduler", ""))
    settings = {
        "Steps": str(job.steps),
        "Sampler": _SAMPLERS.get(scheduler, scheduler),
        "CFG scale": str(job.guidance),
        "Seed": "" if outcome.seed is None else str(outcome.seed),
        "Size": f"{job.width}x{job.height}",
        "Model hash": outcome.models.get("renderer", "")[:10],
        "Model": str(renderer.get("model", "")),
        "Lora hashes": ", ".join(f"{lora.name}: {lora.digest[:12]}" for lora in job.loras),
        "TI hashes": ", ".join(f"{each.name}: {each.digest[:12]}" for each in job.embeddings),
        "Version": f"pressrun {outcome.version}".strip(),
    }
    quoted = (
        (name, json.dumps(value, ensure_ascii=False) if set(value) & set(',:"\n') else value)
        for name, value in settings.items()
    )
    lines.append(", ".join(f"{name}: {value}" for name, value in quoted if value))
    return "\n".join(lines)


def _one_line(text: str) -> str:
    """The text on one line: a line break would begin another section of the parameters."""
    return " ".join(text.split())
