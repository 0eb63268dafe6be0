"""A record as the text that A1111 and similar tools write into images and read back.

The form is that of `create_infotext` and `parse_generation_parameters` in
AUTOMATIC1111/stable-diffusion-webui, modules/processing.py and infotext_utils.py.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.job import Job
from pipeline.record import Outcome

_SAMPLERS = {
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "HeunDiscreteScheduler": "Heun",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "UniPCMultistepScheduler": "UniPC",
}
_SCHEDULES = {
    ("use_karras_sigmas", True): "Karras",
    ("use_exponential_sigmas", True): "Exponential",
    ("use_beta_sigmas", True): "Beta",
    ("timestep_spacing", "trailing"): "SGM Uniform",
}


def parameters(outcome: Outcome, renderer: Mapping[str, Any] | None = None) -> str:
    """Prompt, negative prompt and settings of the winner; empty without a job and a brief.

    `renderer` is the section of the job's renderer, with the model's name and its scheduler.
    """
    job, brief, renderer = outcome.winners_job, outcome.winners_brief, renderer or {}
    if job is None or brief is None:
        return ""
    tags = (f"<lora:{lora.name}:{lora.weight:g}>" for lora in job.loras)
    lines = [" ".join([_one_line(brief.prompt), *tags])]
    if negative := _one_line(brief.negative):
        lines.append(f"Negative prompt: {negative}")
    settings = {
        "Steps": str(job.steps),
        **_sampling(renderer),
        "CFG scale": str(job.guidance),
        "Seed": "" if outcome.seed is None else str(outcome.seed),
        "Size": f"{job.width}x{job.height}",
        "Denoising strength": f"{job.strength:g}" if job.image else "",
        "Model hash": outcome.models.get("renderer", "")[:10],
        "Model": str(renderer.get("model", "")),
        "Lora hashes": ", ".join(f"{lora.name}: {lora.digest[:12]}" for lora in job.loras),
        "TI hashes": ", ".join(f"{each.name}: {each.digest[:12]}" for each in job.embeddings),
        "ControlNet 0": _control(job, outcome.models, renderer),
        "Version": f"pressrun {outcome.version}".strip(),
    }
    quoted = (
        (name, json.dumps(value, ensure_ascii=False) if set(value) & set(',:"\n') else value)
        for name, value in settings.items()
    )
    lines.append(", ".join(f"{name}: {value}" for name, value in quoted if value))
    return "\n".join(lines)


def _sampling(renderer: Mapping[str, Any]) -> dict[str, str]:
    """The scheduler and its schedule by A1111's names; empty where the profile names none."""
    scheduler = str(renderer.get("scheduler", ""))
    own = renderer.get("scheduler_settings", {})
    sampler = _SAMPLERS.get(scheduler, scheduler)
    if sampler == "DPM++ 2M" and own.get("algorithm_type") == "sde-dpmsolver++":
        sampler = "DPM++ 2M SDE"
    schedules = (name for (key, value), name in _SCHEDULES.items() if own.get(key) == value)
    return {"Sampler": sampler, "Schedule type": next(schedules, "")}


def _control(job: Job, models: Mapping[str, str], renderer: Mapping[str, Any]) -> str:
    """The job's ControlNet as sd-webui-controlnet writes it; empty where it has none.

    The form is that of `serialize_unit` in Mikubill/sd-webui-controlnet, scripts/infotext.py.
    """
    if not job.control:
        return ""
    named = renderer.get("controls", {}).get(job.control, {})
    digest = models.get(f"control:{job.control}", "")
    unit = {
        "Module": named.get("preprocessor", ""),
        "Model": f"{named.get('model', '')} [{digest[:8]}]" if digest else named.get("model", ""),
        "Weight": job.control_scale,
        "Resize Mode": "Crop and Resize",
        "Guidance Start": job.control_from,
        "Guidance End": job.control_until,
        "Pixel Perfect": True,
        "Control Mode": "Balanced",
    }
    # its reader divides at commas and colons
    plain = {name: str(value).replace(",", " ").replace(":", " ") for name, value in unit.items()}
    return ", ".join(f"{name}: {value}" for name, value in plain.items())


def _one_line(text: str) -> str:
    """The text on one line: a line break would begin another section of the parameters."""
    return " ".join(text.split())
