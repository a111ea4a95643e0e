"""The two slots of the boot disk: a new image is tried once, and kept when it says that it is well."""

from dataclasses import dataclass

from appliance.machine.disks import ConfigDisk


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of looking for a new image: sentences for the console, and whether to start it."""

    lines: tuple[str, ...] = ()
    reboot: bool = False


def offer(command_line: str, disk: ConfigDisk | None) -> Outcome:  # noqa: ARG001  nothing to offer yet
    """Look for a newer image on another disk, before the gateway starts. `disk` is the boot disk."""
    return Outcome()


def keep(command_line: str, disk: ConfigDisk | None) -> list[str]:  # noqa: ARG001  same
    """Keep the slot that this machine booted from: its gateway has been well for a while."""
    return []
