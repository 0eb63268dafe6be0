"""A device's faults are told apart by type and message."""

import pytest
import torch

from pipeline.errors import JobError
from pipeline.models.faults import device_lost, out_of_memory, tells_of_lost_device, with_room

LOST = [
    torch.AcceleratorError("an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
]
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]
OF_THE_JOB = [
    RuntimeError("CUDA error: invalid configuration argument"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("The size of tensor a (64) must match the size of tensor b (32)"),
    ValueError("CUDA error"),
]


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_sticky_error_means_that_the_device_is_lost(error: Exception) -> None:
    assert device_lost(error)
    assert not out_of_memory(error)
    assert tells_of_lost_device(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_full_memory_is_no_lost_device(error: Exception) -> None:
    assert out_of_memory(error)
    assert not device_lost(error)


@pytest.mark.parametrize("error", OF_THE_JOB, ids=repr)
def test_what_one_job_asked_wrongly_ends_no_worker(error: Exception) -> None:
    assert not device_lost(error)
    assert not out_of_memory(error)


def test_a_call_without_room_is_run_once_more_after_some_is_made() -> None:
    done = list[str]()

    def call() -> None:
        done.append("call")
        if done.count("call") <= short:
            raise torch.OutOfMemoryError("CUDA out of memory")

    short = 1
    with_room(call, lambda: done.append("room"))
    assert done == ["call", "room", "call"]
    done, short = [], 2
    with pytest.raises(JobError, match="no memory left"):
        with_room(call, lambda: done.append("room"))
    with pytest.raises(ZeroDivisionError):
        with_room(lambda: 1 // 0, lambda: done.append("never"))
    assert "never" not in done
