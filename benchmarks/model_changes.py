"""Changes of models in a fleet: a file whose rows name three models, on two workers.

A worker has memory for one of the models. `planned` is a run; `unplanned` sends the same rows to
the same workers in the order of the file, which is by chance. `model_changes` are the calls of a
worker's renderers that began with another model than the call before, of the worker with the most;
`model_loads` likewise the models that it loaded. `models_planned_vs_unplanned` is the ratio of the
seconds from the first record to the last.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.common import ROOT, arguments, pressrun, show
from flows.runs.open import open_run
from flows.stack.embedded import private_redis
from pipeline.assemble.stores import open_run_folder
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.records.run_folder import RunFolder
from pipeline.settings import SHIPPED_MODELS, load_settings
from tests.harness.monitored import scrape, started_worker, wait
from tests.harness.prefect_server import free_port
from workers.queue.messages import Message, Queue

MODELS = ("", "draft", "noisy")
WORKERS = 2
MEMORY_MB = 40
"""Room for one of the models and not for two."""
LIMIT = 3600.0
PROFILE = """
extends = "shapes"
writer = {kind = "template"}
renderer = {image_adapter = "", loras = ""}
[defaults]
candidates = 1
threshold = 0.0
passages = 0
steps = 4
[renderers.draft]
kind = "diffusers"
model = "diffusion"
unet = "draft-unet"
[renderers.noisy]
kind = "diffusers"
model = "diffusion"
unet = "FOLDER"
"""


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=500)
    given = parser.parse_args()
    figures = measure(given.rows)
    show("Changes of models", figures)
    if given.json:
        print(json.dumps(figures))


def measure(rows: int) -> dict[str, Any]:
    """Changes and loads per worker, with the plan of a run and without one."""
    with tempfile.TemporaryDirectory(prefix="pressrun-") as name, ExitStack() as stack:
        folder = Path(name)
        _write(folder, rows)
        url = stack.enter_context(private_redis())
        settings = {
            "PYTHONPATH": str(ROOT),
            "PRESSRUN_PROFILE": str(folder / "three.toml"),
            "PRESSRUN_STORE": str(folder / "out"),
            "PRESSRUN_REDIS_URL": url,
            "PRESSRUN_RENDERER_MEMORY_MB": str(MEMORY_MB),
            "PRESSRUN_CONCURRENCY": "4",
            "PRESSRUN_DEVICE": "cpu",
        }
        ports = [free_port() for _ in range(WORKERS)]
        for port in ports:
            (own := folder / str(port)).mkdir()
            stack.enter_context(
                started_worker(own, settings | {"PRESSRUN_METRICS_PORT": str(port)})
            )
        wait(lambda: all(map(scrape, ports)))
        os.environ |= settings
        counts = [_counts(ports)]
        pressrun("run", "jobs.csv", "--run", "planned", workdir=folder)
        counts.append(_counts(ports))
        _unplanned(folder, rows)
        counts.append(_counts(ports))
        changes, loads = (
            [
                int(max(now[event] - then[event] for then, now in zip(*both, strict=True)))
                for both in pairwise(counts)
            ]
            for event in ("changed", "loaded")
        )
        seconds = [_seconds(folder / "out" / "runs" / run) for run in ("planned", "unplanned")]
    return {
        "model_rows": rows,
        "models": len(MODELS),
        "model_workers": WORKERS,
        "model_changes_planned": changes[0],
        "model_changes_unplanned": changes[1],
        "model_loads_planned": loads[0],
        "model_loads_unplanned": loads[1],
        "models_planned_vs_unplanned": seconds[1] / seconds[0],
    }


def _write(folder: Path, rows: int) -> None:
    """A job file, its profile, and a copy of the shapes' UNet with other weights."""
    noisy = folder / "noisy-unet"
    noisy.mkdir()
    unet = SHIPPED_MODELS / "diffusion" / "unet"
    torch.manual_seed(0)
    state = load_file(unet / "diffusion_pytorch_model.safetensors")
    for key, each in state.items():
        state[key] = each + 0.01 * each.std(correction=0) * torch.randn_like(each)
    save_file(state, noisy / "diffusion_pytorch_model.safetensors")
    (noisy / "config.json").write_bytes((unet / "config.json").read_bytes())
    (folder / "three.toml").write_text(PROFILE.replace("FOLDER", str(noisy)), encoding="utf-8")
    models = [MODELS[row % len(MODELS)] for row in range(rows)]
    Random(0).shuffle(models)
    lines = (f"large red circle number {row},{model}\n" for row, model in enumerate(models))
    (folder / "jobs.csv").write_text("keywords,model\n" + "".join(lines), encoding="utf-8")


def _unplanned(folder: Path, rows: int) -> None:
    """Send all jobs to the workers in the order of the file, and wait for their records."""
    settings = load_settings(home=folder / "home")
    run_folder: RunFolder = open_run_folder(settings, "unplanned", committing=True)
    spec = open_run(folder / "jobs.csv", Overrides(), settings, run_folder)
    queue = Queue.connect(settings.redis_url)
    for shard in range(1, spec.shards + 1):
        jobs = run_folder.shards.read(spec.fingerprint, shard)
        queue.publish(
            Message(spec.run, spec.fingerprint, shard, job.id, job.priority, run_folder.store_id)
            for job in jobs
            if isinstance(job, Job)
        )
    deadline = time.monotonic() + LIMIT
    while len(list(run_folder.records.ids())) < rows:
        if time.monotonic() > deadline:
            sys.exit("the workers did not do all jobs")
        time.sleep(0.5)


def _counts(ports: Sequence[int]) -> list[dict[str, float]]:
    """The workers' counts of events by name."""
    found = [scrape(port) for port in ports]
    name = "pressrun_renderer_events_total"
    return [
        {event: each.value(name, event=event) for event in ("changed", "loaded")}
        for each in found
        if each
    ]


def _seconds(run: Path) -> float:
    """The seconds from a run's first record to its last."""
    times = [record.stat().st_mtime for record in (run / "records").iterdir()]
    return max(times) - min(times)


if __name__ == "__main__":
    main()
