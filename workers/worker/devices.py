"""The devices that get a worker, found without importing torch in this process."""

import ctypes
import subprocess
import sys
from pathlib import Path

from pipeline.errors import ConfigError

COUNT = "import torch; print(torch.cuda.device_count())"
COUNT_SECONDS = 300
KINDS = ("auto", "cpu", "cuda", "mps", "xpu")


def choose_devices(asked: str) -> list[str]:
    """Torch's names for `all`, `cpu`, or CUDA numbers such as `0,1`. Raises ConfigError.

    `all` is every CUDA device; without one it is `auto`, a single worker that picks its device
    itself, Apple's Metal before the processor. Any other name of a torch device is kept.
    """
    if asked == "all":
        return [f"cuda:{number}" for number in range(_cuda_devices())] or ["auto"]
    names = [name.strip() for name in asked.split(",")]
    devices = [f"cuda:{int(name)}" if name.isdecimal() else name for name in names]
    if not all(devices) or len(set(devices)) < len(devices):
        raise ConfigError(f"devices: {asked!r} is not `all`, `cpu` or numbers such as 0,1")
    return devices


def require_devices(asked: str) -> None:
    """Raise ConfigError if one of the devices, written as for `choose_devices`, is missing."""
    if asked != "all":
        for name in choose_devices(asked):
            require_device(name)


def require_device(name: str) -> None:
    """Raise ConfigError for a device that this machine is quickly known not to have."""
    kind, _, number = name.partition(":")
    wrong = ""
    if kind not in KINDS or not (number.isdecimal() or name == kind):
        wrong = "is no device such as cuda or cuda:1"
    elif kind == "cuda" and not _driver_present():
        wrong = "needs a GPU, and no driver is here"
    elif kind == "mps" and sys.platform != "darwin":
        wrong = "is Apple's, and this is none"
    elif kind == "cuda" and int(number or 0) > 0 and int(number) >= (count := _cuda_devices()):
        wrong = f"is not there: torch counts {count} CUDA devices, from cuda:0 on"
    if wrong:
        raise ConfigError(f"PRESSRUN_DEVICE or --devices: {name!r} {wrong}; set auto or cpu.")


def _cuda_devices() -> int:
    """Number of CUDA devices, as torch counts them in a short-lived process."""
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
    """Presence of NVIDIA's or AMD's driver, without which torch, slow to load, finds nothing."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True
