"""What the machine has."""

from __future__ import annotations

import os
from pathlib import Path


def memory_limit() -> int:
    """40 % of the machine's or the control group's memory, whichever is less; bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total * 4 // 10


def free_disk(path: str) -> int:
    """Bytes that are free where a folder is."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
