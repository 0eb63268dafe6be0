"""Parts of every training: budget, schedule, average of weights, images, files, log lines."""

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.shapes.world import Scene, draw, sample_scene


def arguments(description: str | None, seconds: float) -> argparse.ArgumentParser:
    """The options that all training programs take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seconds", type=float, default=seconds, help="wall time to train")
    parser.add_argument("--steps", type=int, help="train this many steps instead: reproducible")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def seeded(seed: int) -> np.random.Generator:
    """Seed Python, torch and a new numpy generator; one torch thread, which is fastest here."""
    torch.set_num_threads(1)
    random.seed(seed)
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


class Budget:
    """The length of a training: in wall seconds, or in steps where the run must be reproducible."""

    def __init__(self, seconds: float, steps: int | None = None) -> None:
        self.seconds, self.steps = seconds, steps
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Step numbers with the part of the budget that is spent, from 0 to below 1."""
        step = 0
        while (progress := self._progress(step)) < 1:
            yield step, progress
            step += 1

    def _progress(self, step: int) -> float:
        return step / self.steps if self.steps else self.elapsed / self.seconds


def warmup_cosine(progress: float, warmup: float = 0.02) -> float:
    """Learning-rate factor: linear from 0 to 1 over `warmup`, then a half cosine down to 0."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale the learning rate that each group was created with."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("base_lr", group["lr"]) * factor


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights; `.module` is the averaged model.

    The decay rises to its value, else the random start would weigh in for thousands of steps.
    """

    def update(averaged: list[torch.Tensor], now: list[torch.Tensor], count: torch.Tensor) -> None:
        rising = (1 + float(count)) / (10 + float(count))
        get_ema_multi_avg_fn(min(decay, rising))(averaged, now, count)

    return AveragedModel(model, multi_avg_fn=update)


def save_half(model: nn.Module, folder: Path) -> None:
    """Write config.json and fp16 safetensors of a diffusers or transformers model.

    The config goes on saying float32, which is how the weights are to be loaded.
    The files appear whole, so that another program may read an older version meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        model.save_pretrained(fresh, safe_serialization=True)
        for file in Path(fresh).iterdir():
            if file.suffix == ".safetensors":
                halve(file)
            file.replace(folder / file.name)


def halve(file: Path) -> None:
    """Rewrite a safetensors file in fp16."""
    weights = {name: w.half() for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def draw_many(scenes: list[Scene], rng: np.random.Generator, style: str = "filled") -> torch.Tensor:
    """Images of the scenes, uint8 [n, 3, 64, 64]."""
    images = np.stack([draw(scene, rng, style) for scene in scenes])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def sample_many(count: int, rng: np.random.Generator, two: float) -> list[Scene]:
    """Random scenes, the share `two` of them with two objects."""
    return [sample_scene(rng, two) for _ in range(count)]


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 images to floats from -1 to 1."""
    return images.float() / 127.5 - 1


def log(step: int, budget: Budget, **figures: float) -> None:
    """One line on stderr: step, seconds, figures."""
    shown = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
    print(f"step {step} {budget.elapsed:.0f}s {shown}", file=sys.stderr, flush=True)


def report(**figures: float) -> None:
    """The final quality as one JSON line on stdout."""
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}), flush=True)
