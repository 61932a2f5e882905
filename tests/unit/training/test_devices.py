"""The precision that suits a device, and what is told of the machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vlmdata.errors import ConfigError
from vlmdata.training.engine.devices import hardware, precision_on

GPUS = [("Tesla T4", (7, 5), "fp32"), ("A100", (8, 0), "bf16"), ("L4", (8, 9), "bf16"), ("H100", (9, 0), "bf16")]


@pytest.mark.parametrize(("name", "capability", "expected"), GPUS)
def test_gpus_since_ampere_train_in_bf16_and_older_ones_do_not(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    precision, why = precision_on("cuda:0", "auto")
    fast = "fast" if expected == "bf16" else "not fast"
    version = ".".join(map(str, capability))
    assert (precision, why) == (expected, f"{name} (compute capability {version}) is {fast} in bf16")


@pytest.mark.parametrize("amx", [True, False])
def test_processors_with_amx_train_in_bf16(monkeypatch: pytest.MonkeyPatch, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    told = f"this processor has {'AMX, so it is fast' if amx else 'no AMX, so it is not fast'} in bf16"
    assert precision_on("cpu", "auto") == ("bf16" if amx else "fp32", told)
    assert precision_on("cpu", "fp32") == ("fp32", "as the config says")
    said = "as the config says" if amx else f"as the config says, though {told}"
    assert precision_on("cpu", "bf16") == ("bf16", said)


def test_bf16_on_a_gpu_that_has_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "P100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match=r"precision = 'bf16': P100 .*is not fast in bf16; choose auto or fp32"):
        precision_on("cuda:0", "bf16")


def test_the_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = hardware("cpu")
    assert set(told) == {"device", "machine", "processor", "cores", "threads"} and all(told.values())
    card = SimpleNamespace(name="H100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert hardware("cuda:0").items() >= {"gpu": "H100", "gpu_memory_gib": 80.0, "device": "cuda:0"}.items()
