"""Where a training runs: one process, or several that torchrun started; and the precision that suits the device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist

from vlmdata.errors import ConfigError
from vlmdata.measure.encoder import device_of

_AMPERE = (8, 0)
_PATIENCE = timedelta(days=2)
"""Of those that wait while the first process verifies, indexes or measures; torchrun ends them if it dies."""


@dataclass(frozen=True)
class Place:
    """This process among those of a training.

    Attributes:
        rank: its number from 0; 0 writes what is to be written.
        devices: how many there are.
        device: "cpu" or "cuda:0".
        waits: the group in which one waits for another, for as long as it takes; None: there is nobody else.
    """

    rank: int
    devices: int
    device: str
    waits: Any = None

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the others."""
        if self.devices > 1:
            dist.barrier(group=self.waits)

    def all_of(self, value: Any) -> list[Any]:
        """What each of them says, by rank."""
        if self.devices == 1:
            return [value]
        found: list[Any] = [None] * self.devices
        dist.all_gather_object(found, value, group=self.waits)
        return found


@contextmanager
def place(wanted: str) -> Iterator[Place]:
    """This process's place; under torchrun the group of all is open for as long as the block runs.

    Raises:
        ConfigError: the device is not there.
    """
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    kind = device_of(wanted)
    if devices == 1:
        yield Place(0, 1, "cuda:0" if kind == "cuda" else kind)
        return
    device = f"cuda:{os.environ['LOCAL_RANK']}" if kind == "cuda" else kind
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Place(dist.get_rank(), devices, device, dist.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        dist.destroy_process_group()


def precision_on(device: str, wanted: str) -> tuple[str, str]:
    """`bf16` or `fp32`, and why.

    Raises:
        ConfigError: bf16 is asked for and the device does not compute in it.
    """
    if wanted == "fp32":
        return "fp32", "as the config says"
    kind = torch.device(device).type
    fast, why = _fast_on_gpu(device) if kind == "cuda" else _fast_on_cpu()
    if wanted == "bf16":
        if kind == "cuda" and not torch.cuda.is_bf16_supported():
            raise ConfigError(f"precision = 'bf16': {why}; choose auto or fp32")
        return "bf16", "as the config says" + ("" if fast else f", though {why}")
    return ("bf16" if fast else "fp32"), why


def _fast_on_gpu(device: str) -> tuple[bool, str]:
    capability = torch.cuda.get_device_capability(device)
    name = f"{torch.cuda.get_device_name(device)} (compute capability {'.'.join(map(str, capability))})"
    fast = capability >= _AMPERE
    return fast, f"{name} is {'fast' if fast else 'not fast'} in bf16"


def _fast_on_cpu() -> tuple[bool, str]:
    fast = bool(torch.cpu._is_amx_tile_supported())
    return fast, f"this processor has {'AMX, so it is fast' if fast else 'no AMX, so it is not fast'} in bf16"


def _processor() -> str:
    """Its model's name, where the system tells one."""
    import platform

    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(device: str) -> dict[str, Any]:
    """What run.json says of the machine."""
    import platform

    found: dict[str, Any] = {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30, 1)}
    return {"device": device, **found}
