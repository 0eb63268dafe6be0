"""Which devices get a worker, found out without torch in this process."""

import ctypes
import subprocess
import sys
from pathlib import Path

from pipeline.errors import ConfigError

COUNT = "import torch; print(torch.cuda.device_count())"
COUNT_SECONDS = 300


def choose_devices(asked: str) -> list[str]:
    """Torch's names of the devices asked for: `all`, `cpu`, or CUDA numbers such as `0,1`.

    `all` is every CUDA device; without one it is `auto`, a single worker that picks its device
    itself, Apple's Metal before the processor. Any other torch device is taken as it is named.
    Raises ConfigError.
    """
    if asked == "all":
        return [f"cuda:{number}" for number in range(_cuda_devices())] or ["auto"]
    names = [name.strip() for name in asked.split(",")]
    devices = [f"cuda:{int(name)}" if name.isdecimal() else name for name in names]
    if not all(devices) or len(set(devices)) < len(devices):
        raise ConfigError(f"devices: {asked!r} is not `all`, `cpu` or numbers such as 0,1")
    return devices


def require_device(name: str) -> None:
    """Raises ConfigError where a CUDA device is asked for and there is no driver."""
    if name.startswith("cuda") and not _driver_present():
        raise ConfigError(
            f"PRESSRUN_DEVICE: {name!r} needs a GPU, and no driver is here; set auto or cpu."
        )


def _cuda_devices() -> int:
    """How many there are: torch knows, in a process that goes away again."""
    if not _driver_present():
        return 0
    try:
        asked = subprocess.run(
            [sys.executable, "-c", COUNT],
            capture_output=True, text=True, check=True, timeout=COUNT_SECONDS,
        )  # fmt: skip
        return int(asked.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(f"torch cannot count the CUDA devices: {error}") from error


def _driver_present() -> bool:
    """Whether asking torch, which takes seconds, can find anything: NVIDIA's driver, or AMD's."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True
