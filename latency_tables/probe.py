"""Which machine this is, and whether a latency table was made for it."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from latency_tables.device import DeviceProfile

RUNTIME = "onnxruntime"
UNKNOWN = "unknown"

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def this_device(device_id: str | None = None, *, threads: int = 1) -> DeviceProfile:
    """Describe this machine with ONNX Runtime at batch size 1.

    Args:
        device_id: Its name; by default made of chip, logical cores and threads.
        threads: Threads one inference may use.

    Returns:
        A profile; the runtime version is `unknown` where ONNX Runtime is not installed.

    Raises:
        TableFormatError: The id or the number of threads is out of range.
    """
    chip = _chip()
    return DeviceProfile(
        device_id=device_id or default_device_id(chip, cores=os.cpu_count() or 1, threads=threads),
        chip=chip,
        runtime=RUNTIME,
        runtime_version=_version(RUNTIME),
        threads=threads,
        governor=_first_line(_GOVERNOR),
    )


def default_device_id(chip: str, *, cores: int, threads: int) -> str:
    """Name a machine: the chip in lower case without marks, its logical cores and the threads in use."""
    plain = re.sub(r"\((r|tm|c)\)", " ", chip.lower())
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or UNKNOWN
    return f"{slug[:48].strip('-')}-{cores}c-{threads}t"


def matches(profile: DeviceProfile, this: DeviceProfile) -> bool:
    """Tell whether latencies of `profile` hold on `this` device.

    Ids may differ. Chip, runtime, its major and minor version, threads, precision and batch size may not.
    """
    return all(_identity(profile)[name] == value for name, value in _identity(this).items())


def _identity(profile: DeviceProfile) -> dict[str, object]:
    return {
        "chip": profile.chip,
        "runtime": profile.runtime,
        "version": profile.runtime_version.split(".")[:2],
        "threads": profile.threads,
        "precision": profile.precision,
        "batch_size": profile.batch_size,
    }


def _chip() -> str:
    if _CPUINFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(errors="replace"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine() or UNKNOWN


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return UNKNOWN


def _first_line(path: Path) -> str | None:
    return path.read_text().strip() or None if path.is_file() else None
