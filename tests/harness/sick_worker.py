"""A breakable worker that falls ill: the first to find a file `ILLNESS.sick`, once."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import ModelError, StoreFull
from pipeline.job import ImageArray, RenderRequest, RunSpec
from pipeline.ports import Ports, Pruner
from tests.harness.breakable_worker import LEASE_SECONDS, Breakable, Shaded, workdir
from workers.queue import leases
from workers.worker.main import main

ILLNESSES = {
    "model": ModelError("its weights are broken"),
    "disk": StoreFull("No space left on device"),
    "device": RuntimeError("CUDA error: an illegal memory access was encountered"),
}


class Sick(Shaded):
    """The Renderer port: raises what the desk says, once."""

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """An image for each seed, from a worker in good health."""
        for name, illness in ILLNESSES.items():
            try:
                (workdir() / f"{name}.sick").unlink()
            except FileNotFoundError:
                continue
            raise illness
        return super().render(request, pruner)


class Hospital(Breakable):
    """A breakable worker's assembly, with the renderer that falls ill."""

    def ports(self, spec: RunSpec) -> Ports:
        """The stages of any run."""
        return replace(super().ports(spec), renderer=Sick())


if __name__ == "__main__":
    leases.LEASE_SECONDS = LEASE_SECONDS
    main(int(sys.argv[1]), Hospital)
