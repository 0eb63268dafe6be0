"""Train every small model in order: `python -m examples.shapes.training [--work DIR] [--to DIR]`.

A part whose report is already in the working folder is passed over, so a broken run goes on where
it stopped. At the end the finished models replace those that ship. Takes hours on a CPU.
"""

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class Part:
    """One run of a training program. `{w}` in the options is the working folder."""

    name: str
    program: str
    options: str

    def command(self, work: Path, seed: int) -> list[str]:
        """The command line."""
        options = self.options.format(w=work).split()
        module = f"examples.shapes.training.{self.program}"
        return [sys.executable, "-m", module, *options, "--seed", str(seed)]


SEEN = "--tokenizer {w}/diffusion/tokenizer --vae {w}/diffusion/vae"
FIRST = "--judge {w}/first-judge"
REFINED = "--start {w}/first-judge --generated {w}/pictures.npz"
ADAPTED = "--pipeline {w}/diffusion --judge {w}/open_clip"
EYES = "--out {w}/sees --vae {w}/diffusion/vae"
PARTS = (
    Part("vae", "renderer.vae", "--out {w}/diffusion/vae"),
    Part("decoder", "renderer.decoder", "--out {w}/diffusion/vae"),
    Part("text_encoder", "renderer.text_encoder", "--out {w}/diffusion"),
    Part("unet", "renderer.unet", "--out {w}/diffusion"),
    Part("lora", "renderer.lora", "--out {w}/loras --base {w}/diffusion"),
    Part("second_lora", "renderer.lora", "--out {w}/loras --base {w}/diffusion --style monochrome"),
    Part("control", "control.train", "--out {w}/control-edges --pipeline {w}/diffusion"),
    Part("umpire", "umpire", "--out {w}/umpire --vae {w}/diffusion/vae --seconds 1200"),
    Part("first_judge", "judge.train", f"--out {{w}}/first-judge {SEEN}"),
    Part(
        "pictures",
        "judge.images",
        f"--out {{w}}/pictures.npz --pipeline {{w}}/diffusion {FIRST} --seconds 420",
    ),
    Part(
        "judge",
        "judge.train",
        f"--out {{w}}/open_clip {SEEN} {REFINED} --seconds 2400 --pool 20000",
    ),
    Part("calibration", "judge.calibration", "--models {w}"),
    Part(
        "adapter", "renderer.adapter", f"--out {{w}}/image-adapter/ip-adapter.safetensors {ADAPTED}"
    ),
    Part(
        "sees_images",
        "sees.images",
        "--out {w}/sees.npz --pipeline {w}/diffusion --seconds 1200",
    ),
    Part("sees_vision", "sees.train", f"vision {EYES} --seconds 1500"),
    Part("sees_language", "sees.train", "language --out {w}/sees --seconds 900"),
    Part("sees", "sees.train", f"both {EYES} --generated {{w}}/sees.npz --seconds 2400"),
    Part("writer", "writer.train", "--out {w}/writer --seconds 9000"),
)
SHIP = (
    "diffusion",
    "draft-unet",
    "loras",
    "control-edges",
    "umpire",
    "open_clip",
    "image-adapter",
    "sees",
    "writer",
)


def main() -> None:
    """Train what is missing, then ship."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".build/shapes"))
    parser.add_argument("--to", type=Path, default=SHIPPED, help="where the finished models go")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        run(part, given.work, given.seed)
    for name in SHIP:
        ship(given.work / name, given.to / name)


def run(part: Part, work: Path, seed: int) -> None:
    """Run the part unless its report is there; the report appears only after success."""
    report = work / f"{part.name}.json"
    if report.exists():
        return
    print(f"training {part.name}", file=sys.stderr, flush=True)
    done = subprocess.run(part.command(work, seed), check=True, stdout=subprocess.PIPE)
    report.write_bytes(done.stdout)


def ship(made: Path, target: Path) -> None:
    """Put a finished model, a folder or a file, in the place of the older one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if made.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)
    else:
        shutil.copyfile(made, target)


if __name__ == "__main__":
    main()
