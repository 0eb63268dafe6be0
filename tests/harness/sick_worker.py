"""A breakable worker that becomes unhealthy: the first to find a file `ILLNESS.sick`, once."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import ModelError, StoreFull
from pipeline.job import ImageArray, RenderRequest
from pipeline.ports import Ports, Pruner
from pipeline.record import RunSpec
from tests.harness.breakable_worker import LEASE_SECONDS, BreakableAssembly, ShadedRenderer, workdir
from workers.queue import leases
from workers.worker.main import main

ERRORS = {
    "model": ModelError("its weights are broken"),
    "disk": StoreFull("No space left on device"),
    "device": RuntimeError("CUDA error: an illegal memory access was encountered"),
}


class FailingRenderer(ShadedRenderer):
    """The Renderer port: raises each error that the workdir names, once."""

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """An image for each seed, if no error is due."""
        for name, error in ERRORS.items():
            try:
                (workdir() / f"{name}.sick").unlink()
            except FileNotFoundError:
                continue
            raise error
        return super().render(request, pruner)


class SickAssembly(BreakableAssembly):
    """A breakable worker's assembly, with the failing renderer."""

    def ports(self, spec: RunSpec) -> Ports:
        """The ports of any run."""
        return replace(super().ports(spec), renderer=FailingRenderer())


if __name__ == "__main__":
    leases.LEASE_SECONDS = LEASE_SECONDS
    main(int(sys.argv[1]), SickAssembly)
