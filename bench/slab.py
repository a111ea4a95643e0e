"""Kernel memory: what the slab allocator holds, cache by cache."""

from collections.abc import Mapping
from pathlib import Path

SLABINFO = Path("/proc/slabinfo")
MEMINFO = Path("/proc/meminfo")
WHOLE = "Slab"

# Caches no idle session lives in: files and block devices of whatever else the machine does, our own
# reading of /proc, and what earlier loads left behind for a minute (time-wait sockets). The rest is summed.
FOREIGN = (
    "ext2", "ext4", "btrfs", "xfs", "jbd2", "buffer_head", "bio-", "biovec", "radix_tree", "kernfs", "proc_",
    "inode_cache", "shmem_inode", "fuse", "overlay", "ovl_", "blkdev", "request_queue", "names_cache",
    "file_lock", "fscrypt", "mb_cache", "isofs", "fat_", "dm_", "scsi", "sgpool", "tw_sock", "request_sock",
)  # fmt: skip


def parse_slabinfo(text: str) -> dict[str, int]:
    """Bytes in active objects by cache, from slabinfo(5) version 2.1: active_objs times objsize."""
    caches: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith(("slabinfo", "#")):
            continue
        name, active, _, size, *_ = line.split()
        caches[name] = int(active) * int(size)
    return caches


def parse_meminfo_slab(text: str) -> int:
    """Bytes of all slabs, free objects included, from /proc/meminfo."""
    for line in text.splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Slab line")


def is_foreign(cache: str) -> bool:
    """Whether no idle session can live in this cache."""
    return cache.startswith(FOREIGN)


def read_caches() -> dict[str, int]:
    """Bytes by cache; a user who may not read slabinfo gets one entry, the machine's whole slab memory."""
    try:
        caches = parse_slabinfo(SLABINFO.read_text())
    except PermissionError:
        return {WHOLE: parse_meminfo_slab(MEMINFO.read_text())}
    return {name: size for name, size in caches.items() if not is_foreign(name)}


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Bytes each cache grew by; the caches that did not change are left out."""
    names = before.keys() | after.keys()
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    return {name: change for name, change in changes.items() if change}


def per_session(growth: Mapping[str, int], sessions: int, bare: Mapping[str, float]) -> dict[str, float]:
    """Bytes per session by cache, less `bare`: what client and endpoint alone hold of it."""
    names = growth.keys() | bare.keys()
    return {name: growth.get(name, 0) / sessions - bare.get(name, 0.0) for name in names}
