"""Kernel memory: what the slab allocator holds, cache by cache."""

import os
from collections.abc import Mapping
from pathlib import Path

SLABINFO = Path("/proc/slabinfo")

# Caches no idle session lives in: files and block devices of whatever else the machine does, our own
# reading of /proc, and what earlier loads left behind for a minute (time-wait sockets). The rest is summed.
FOREIGN = (
    "ext2", "ext4", "btrfs", "xfs", "jbd2", "buffer_head", "bio-", "biovec", "radix_tree", "kernfs", "proc_",
    "inode_cache", "shmem_inode", "fuse", "overlay", "ovl_", "blkdev", "request_queue", "names_cache",
    "file_lock", "fscrypt", "mb_cache", "isofs", "fat_", "dm_", "scsi", "sgpool", "tw_sock", "request_sock",
)  # fmt: skip

# What a process is made of. Part of a session's price only where a session is a process; otherwise it is
# other programs' starting and ending. (Not anon_vma_chain: the kernel keeps epoll's wait entries in it too.)
PROCESS = frozenset(
    [
        "anon_vma",
        "cred",
        "cred_jar",
        "files_cache",
        "fs_cache",
        "maple_node",
        "mm_struct",
        "pid",
        "pidfs_attr_cache",
        "perf_event",
        "sighand_cache",
        "signal_cache",
        "task_struct",
        "vm_area_struct",
        "vmap_area",
        "pool_workqueue",
    ]
)


def parse_slabinfo(text: str) -> dict[str, int]:
    """Bytes in active objects by cache, from slabinfo(5) version 2.1: active_objs times objsize."""
    caches: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith(("slabinfo", "#")):
            continue
        name, active, _, size, *_ = line.split()
        caches[name] = int(active) * int(size)
    return caches


def is_foreign(cache: str, *, forks: bool) -> bool:
    """Whether no idle session can live in this cache; with `forks` a session is a process."""
    return cache.startswith(FOREIGN) or (not forks and cache in PROCESS)


def readable() -> bool:
    """Tell whether this user may read slabinfo (root alone may, as a rule)."""
    return os.access(SLABINFO, os.R_OK)


def read_caches(*, forks: bool) -> dict[str, int]:
    """Bytes by cache; none for a user who may not read slabinfo.

    The machine's whole slab memory, which anybody may read, is no stand-in: others' files move it by more
    than the sessions do.
    """
    if not readable():
        return {}
    caches = parse_slabinfo(SLABINFO.read_text())
    return {name: size for name, size in caches.items() if not is_foreign(name, forks=forks)}


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Bytes each cache grew by; the caches that did not change are left out."""
    names = before.keys() | after.keys()
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    return {name: change for name, change in changes.items() if change}


def per_session(growth: Mapping[str, int], sessions: int, bare: Mapping[str, float]) -> dict[str, float]:
    """Bytes per session by cache, less `bare`: what client and endpoint alone hold of it."""
    names = growth.keys() | bare.keys()
    return {name: growth.get(name, 0) / sessions - bare.get(name, 0.0) for name in names}
