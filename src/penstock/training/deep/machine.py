"""What a run's last bits depend on beside the program: instructions, torch's threads and switches."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping

import torch

from penstock import native


def machine() -> dict[str, str]:
    """What a sum's last bits depend on beside the program."""
    return {
        "tables": native.simd_level(),
        "torch_simd": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def told(machine: Mapping[str, str]) -> str:
    return f"torch {machine['torch']} ({machine['torch_simd']}) and tables' {machine['tables']}"


@contextlib.contextmanager
def determined(threads: int, *, deterministic: bool) -> Iterator[None]:
    """torch's threads (0: as they are) and switches for a run, and the garbage collector's; as they were after it."""
    before, was = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    # What is there by now stays: collections would walk through all of torch's modules every few batches, for nothing.
    gc.collect()
    gc.freeze()
    torch.set_num_threads(1 if deterministic else threads or before)
    torch.use_deterministic_algorithms(deterministic or was)
    try:
        yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(was)
