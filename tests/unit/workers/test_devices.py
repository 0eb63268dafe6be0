"""The choice of devices that get a worker."""

import subprocess
import sys

import pytest

from pipeline.errors import ConfigError
from workers.worker import devices
from workers.worker.devices import choose_devices, require_device, require_devices


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [("cpu", ["cpu"]), ("0,1", ["cuda:0", "cuda:1"]), (" 2 ", ["cuda:2"]), ("mps", ["mps"]),
     ("cuda:3", ["cuda:3"]), ("auto", ["auto"])],
)  # fmt: skip
def test_named_devices_are_kept_as_named(asked: str, chosen: list[str]) -> None:
    assert choose_devices(asked) == chosen


@pytest.mark.parametrize("asked", ["", "0,,1", "0,0"])
def test_a_list_with_empty_or_repeated_devices_is_refused(asked: str) -> None:
    with pytest.raises(ConfigError, match="devices"):
        choose_devices(asked)


@pytest.mark.parametrize(
    ("count", "chosen"), [("3", ["cuda:0", "cuda:1", "cuda:2"]), ("0", ["auto"])]
)
def test_all_is_every_cuda_device_that_torch_counts(
    monkeypatch: pytest.MonkeyPatch, count: str, chosen: list[str]
) -> None:
    monkeypatch.setattr(devices, "_driver_present", lambda: True)
    monkeypatch.setattr(devices, "COUNT", f"print({count})")
    assert choose_devices("all") == chosen


def test_a_torch_that_cannot_count_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_driver_present", lambda: True)
    monkeypatch.setattr(devices, "COUNT", "raise SystemExit(1)")
    with pytest.raises(ConfigError, match="count"):
        choose_devices("all")


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_here_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(devices, "_driver_present", lambda: True)
    monkeypatch.setattr(devices, "COUNT", "print(2)")
    require_device(name)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [("2", "'cuda:2' is not there: torch counts 2"), ("gpu", "no device"), ("cuda:x", "no device"),
     ("cuda:", "no device"), ("0,cuda:7", "'cuda:7' is not there")],
)  # fmt: skip
def test_a_device_that_is_not_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, asked: str, complaint: str
) -> None:
    monkeypatch.setattr(devices, "_driver_present", lambda: True)
    monkeypatch.setattr(devices, "COUNT", "print(2)")
    with pytest.raises(ConfigError, match=complaint):
        require_devices(asked)


@pytest.mark.slow
def test_the_counting_program_runs_under_the_real_torch() -> None:
    counted = subprocess.run(
        [sys.executable, "-c", devices.COUNT], capture_output=True, text=True, check=True
    )
    assert int(counted.stdout) >= 0
