"""What this machine has: GPUs by NVML where there are any (the extra `gpu`), processor and memory otherwise."""

import os
from importlib import import_module
from typing import Any

from crosslogic.agent.model import GpuState, Hardware

_MIB = 1024 * 1024


class Machine:
    """Reads the hardware; NVML is opened once."""

    def __init__(self) -> None:
        self._nvml = _open_nvml()

    def read(self) -> Hardware:
        """As it is now."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Hardware(cpus, _memory_mb(), tuple(self._gpus()))

    def _gpus(self) -> list[GpuState]:
        nvml = self._nvml
        if nvml is None:
            return []
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            return [_gpu(nvml, index, handle) for index, handle in enumerate(handles)]
        except nvml.NVMLError:
            return []


def _open_nvml() -> Any:
    """The module, initialised; None without the package, the driver or a GPU."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _gpu(nvml: Any, index: int, handle: Any) -> GpuState:
    name = nvml.nvmlDeviceGetName(handle)
    memory = _maybe(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _maybe(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    temperature = _maybe(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    return GpuState(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        temperature_c=None if temperature is None else float(temperature),
        utilisation_ratio=None if rates is None else rates.gpu / 100.0,
        vram_total_mb=None if memory is None else memory.total // _MIB,
        vram_used_mb=None if memory is None else memory.used // _MIB,
    )


def _maybe(nvml: Any, ask: Any, *arguments: Any) -> Any:
    """Some GPUs do not answer some questions."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _memory_mb() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    except (ValueError, OSError):
        return 0
