"""Tells a device's faults apart: what may be tried again, and what ends the process."""

import gc

import torch

LOST = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "device-side assert")


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller call might succeed."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in str(error) for sign in ("out of memory", "can't allocate memory"))
    )


def device_lost(error: BaseException) -> bool:
    """Whether the device stays unusable for this process, as after an illegal access on CUDA."""
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)
    )


def free_memory() -> None:
    """Give cached memory back. Call it outside the except block, which holds the tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
