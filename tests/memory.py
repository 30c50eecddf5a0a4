"""The peak memory and the memory maps of a process, for tests and benchmarks."""

import resource
import sys
from pathlib import Path

MAPS = Path("/proc/self/maps")


def memory_maps():
    """Return how many memory maps this process has; Linux alone says so, and 0 stands for any other system."""
    return len(MAPS.read_bytes().splitlines()) if MAPS.exists() else 0


def peak_gigabytes():
    """Return the peak resident memory of this process in GB.

    `ru_maxrss` survives `exec` on Linux: a small process started from a large one would report the large one's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e6
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
