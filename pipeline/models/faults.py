"""Tells a device's faults apart: what may be tried again, and what ends the process."""

import gc

import torch

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
"""Calls that the driver did not even begin: CUDA goes on, so a job must not end the worker."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller call might succeed."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_MEMORY)
    )


def device_lost(error: BaseException) -> bool:
    """Whether the device stays unusable for this process, as after an illegal access on CUDA."""
    kind = type(error).__name__
    return isinstance(error, RuntimeError) and tells_of_lost_device(f"{kind}: {error}")


def tells_of_lost_device(message: str) -> bool:
    """Whether an error of this kind and message means that the device is lost.

    Source: cudaError in the CUDA Runtime API, which says of illegal accesses, asserts and failed
    launches that the process is left in an inconsistent state and has to be started again.
    """
    if any(sign in message for sign in (*NO_MEMORY, *REFUSED)):
        return False
    return any(sign in message for sign in LOST)


def free_memory() -> None:
    """Give cached memory back. Call it outside the except block, which holds the tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
