"""Classification of device errors: retryable ones, and losses that end the process."""

import gc
from collections.abc import Callable

import torch

from pipeline.errors import JobError

NO_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
LOST = ("AcceleratorError", "CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "device-side assert")
REFUSED = (
    "invalid argument",
    "invalid configuration argument",
    "too many resources requested for launch",
    "STATUS_NOT_SUPPORTED",
    "STATUS_BAD_PARAM",
    "STATUS_INVALID_VALUE",
)
"""Calls that the driver refused to begin: CUDA stays usable, so the worker goes on."""


def out_of_memory(error: BaseException) -> bool:
    """True for an error after which a smaller call might succeed."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_MEMORY)
    )


def device_lost(error: BaseException) -> bool:
    """True where the device stays unusable for this process, as after an illegal access on CUDA."""
    kind = type(error).__name__
    return isinstance(error, RuntimeError) and tells_of_lost_device(f"{kind}: {error}")


def tells_of_lost_device(message: str) -> bool:
    """True for the kind and message of an error after which the device is lost.

    Source: cudaError in the CUDA Runtime API. Illegal accesses, asserts and failed launches leave
    the process in an inconsistent state, and it has to be restarted.
    """
    if any(sign in message for sign in (*NO_MEMORY, *REFUSED)):
        return False
    return any(sign in message for sign in LOST)


def free_memory() -> None:
    """Release cached device memory. Call it outside the except block, which holds the tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def with_room(call: Callable[[], object], make_room: Callable[[], None]) -> None:
    """Run the call; where the memory runs out, make room and run it once more.

    Raises JobError where that does not help.
    """
    for last in (False, True):
        try:
            call()
        except Exception as error:
            if not out_of_memory(error):
                raise
            if last:
                raise JobError("the device has no memory left for it") from error
        else:
            return
        # outside the except block, which holds the tensors
        make_room()
        free_memory()
