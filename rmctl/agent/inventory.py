"""What this machine is (once) and how busy it is (every beat), by psutil, NVML and /proc; never by a shell."""

import os
import platform
import socket
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from rmctl.agent import cgroups
from rmctl.agent.protocol import Gpu, GpuSample, Holdings, Inventory, Isolation, Telemetry
from rmctl.names import package_name

CPU_FLAGS = ("sse4_2", "avx", "avx2", "avx512f", "avx512_bf16", "amx_tile", "fma", "asimd", "sve")


class Hardware:
    """Reads the machine. `data` is the agent's folder, whose disk counts as the node's storage."""

    def __init__(self, data: str) -> None:
        self.data = data
        self._nvml: Any = _nvml()
        self._network: tuple[float, int, int] | None = None
        psutil.cpu_percent(None)  # the first call only sets the starting point

    def inventory(
        self, runtimes: list[str], isolation: Isolation, holdings: Holdings | None = None
    ) -> Inventory:
        return Inventory(
            hostname=socket.gethostname(),
            os=_os_name(),
            arch=platform.machine(),
            python=platform.python_version(),
            cpu_millicores=cpu_millicores(),
            memory_bytes=memory_bytes(),
            storage_bytes=self.free_bytes(),
            gpus=self._gpus(),
            network_megabits_per_second=_link_speed(),
            cpu_model=_cpuinfo("model name"),
            cpu_flags=[flag for flag in CPU_FLAGS if flag in _cpuinfo("flags", "Features").split()],
            runtimes=runtimes,
            isolation=isolation,
            gpu_compute=self._gpu_compute(),
            gpu_driver=self._gpu_driver(),
            interconnects=[*(["nvlink"] if self._has_nvlink() else []), *_fabrics()],
            packages=packages(),
            holdings=holdings or Holdings(),
        )

    def free_bytes(self) -> int:
        return int(psutil.disk_usage(self.data).free)

    def telemetry(self, tasks: int) -> Telemetry:
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(self.data)
        now = time.time()
        received, sent = self._network_rates(now)
        return Telemetry(
            at=now,
            cpu_percent=psutil.cpu_percent(None),
            load1=os.getloadavg()[0],
            memory_total=memory.total,
            memory_used=memory.total - memory.available,
            storage_total=disk.total,
            storage_used=disk.used,
            network_receive_bytes_per_second=received,
            network_send_bytes_per_second=sent,
            gpus=self._gpu_samples(),
            tasks=tasks,
        )

    def _network_rates(self, now: float) -> tuple[float, float]:
        counters = psutil.net_io_counters()
        if counters is None:
            return 0.0, 0.0
        before, self._network = self._network, (now, counters.bytes_recv, counters.bytes_sent)
        if before is None or now <= before[0]:
            return 0.0, 0.0
        seconds = now - before[0]
        return (
            max(0, counters.bytes_recv - before[1]) / seconds,
            max(0, counters.bytes_sent - before[2]) / seconds,
        )

    def _gpus(self) -> list[Gpu]:
        nvml = self._nvml
        if nvml is None:
            return []
        found = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            found.append(
                Gpu(
                    index,
                    _text(nvml.nvmlDeviceGetName(handle)),
                    memory,
                    _text(nvml.nvmlDeviceGetUUID(handle)),
                )
            )
        return found

    def _handles(self) -> list[Any]:
        nvml = self._nvml
        return [] if nvml is None else [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]

    def _gpu_compute(self) -> str:
        """The lowest compute capability of the cards; empty where one does not say."""
        if self._nvml is None:
            return ""
        try:
            found = [tuple(self._nvml.nvmlDeviceGetCudaComputeCapability(handle)) for handle in self._handles()]
        except self._nvml.NVMLError:
            return ""
        return "{}.{}".format(*min(found)) if found else ""

    def _gpu_driver(self) -> str:
        if not self._handles():
            return ""
        try:
            return _text(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            return ""

    def _has_nvlink(self) -> bool:
        """Whether every card has a link that is up."""
        handles = self._handles()
        return bool(handles) and all(self._link_is_up(handle) for handle in handles)

    def _link_is_up(self, handle: Any) -> bool:
        for link in range(self._nvml.NVML_NVLINK_MAX_LINKS):
            try:
                if self._nvml.nvmlDeviceGetNvLinkState(handle, link):
                    return True
            except self._nvml.NVMLError:
                return False  # Cards without NVLink say that it is not supported.
        return False

    def _gpu_samples(self) -> list[GpuSample]:
        nvml = self._nvml
        if nvml is None:
            return []
        samples = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                samples.append(
                    GpuSample(
                        index,
                        float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                        int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
                        float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
                        nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0,
                    )
                )
            except nvml.NVMLError:
                continue  # a card that fell off the bus must not silence the node
        return samples


def cpu_millicores() -> int:
    """Processing power that this agent may use: affinity and the quota of its own group respected."""
    available = len(os.sched_getaffinity(0)) * 1000
    version, folder = cgroups.own_groups().get("cpu", ("", ""))
    try:
        if version == "cgroup-v2":
            quota, period = Path(folder, "cpu.max").read_text().split()
        else:
            quota = Path(folder, "cpu.cfs_quota_us").read_text().strip()
            period = Path(folder, "cpu.cfs_period_us").read_text().strip()
        if quota not in ("max", "-1"):
            available = min(available, int(quota) * 1000 // int(period))
    except (OSError, ValueError):
        pass
    return available


def memory_bytes() -> int:
    """Memory that this agent may use: the machine's, or the limit of its own group if that is lower."""
    total = int(psutil.virtual_memory().total)
    version, folder = cgroups.own_groups().get("memory", ("", ""))
    name = "memory.max" if version == "cgroup-v2" else "memory.limit_in_bytes"
    try:
        return min(total, int(Path(folder, name).read_text()))
    except (OSError, ValueError):
        return total


def _nvml() -> Any:
    if not os.path.exists("/dev/nvidiactl") and not os.path.exists("/dev/dxg"):
        return None  # no driver: spare the memory of the library
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _link_speed() -> int:
    statistics = psutil.net_if_stats()
    return max((item.speed for name, item in statistics.items() if name != "lo" and item.isup), default=0)


def _fabrics(root: Path = Path("/sys/class/infiniband")) -> list[str]:
    """`infiniband` or `roce` where a port of that kind is up, as the kernel's RDMA devices say."""
    kinds = set()
    for port in root.glob("*/ports/*"):
        try:
            # "4: ACTIVE"; the link layer is "InfiniBand" or "Ethernet".
            if (port / "state").read_text().partition(":")[0].strip() == "4":
                kinds.add((port / "link_layer").read_text().strip())
        except OSError:
            continue
    names = {"InfiniBand": "infiniband", "Ethernet": "roce"}
    return sorted(names[kind] for kind in kinds & names.keys())


def packages() -> list[str]:
    """What the Python of the agent, which starts the tasks, has installed."""
    # By the names of their folders: to read the metadata of each would take a hundred times as long.
    found = set()
    for folder in sys.path:
        for entry in Path(folder).glob("*.*-info"):
            name, _, kind = entry.name.rpartition(".")
            if kind in ("dist-info", "egg-info"):
                found.add(package_name(name.partition("-")[0]))
    return sorted(found)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _cpuinfo(*names: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in names:
                    return value.strip()
    except OSError:
        pass
    return ""
