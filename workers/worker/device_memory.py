"""The memory of the CUDA device in this process, asked for when somebody wants to know."""

import sys
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class DeviceMemory(Collector):
    """Of the device that the process works on, once torch uses it; nothing before, or without."""

    def __init__(self, device: str) -> None:
        # `auto` and `cuda` are torch's current one
        self._device = device if ":" in device else None

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One family."""
        family = GaugeMetricFamily(
            "pressrun_device_memory_bytes",
            "Of the CUDA device: total, free, and what the worker has reserved and allocated.",
            labels=["kind"],
        )
        for kind, count in _memory(self._device).items():
            family.add_metric([kind], count)
        return [family]

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """As collected."""
        return self.collect()


def _memory(device: str | None) -> dict[str, float]:
    torch = sys.modules.get("torch")  # what no model has loaded holds no memory
    try:
        if torch is None or not torch.cuda.is_initialized():
            return {}
        free, total = torch.cuda.mem_get_info(device)
        return {
            "total": total,
            "free": free,
            "reserved": torch.cuda.memory_reserved(device),
            "allocated": torch.cuda.memory_allocated(device),
        }
    except (AttributeError, RuntimeError):  # it is being imported; or the device is lost
        return {}
