"""GRUB's environment block: the few names that GRUB reads and writes, 1024 bytes that keep their place.

GRUB overwrites the block's sectors where they lie, without the file system, and so do we: a file that is
written anew could come to lie elsewhere. Format: grub-core/lib/envblk.c of GRUB 2.06.
"""

SIZE = 1024
SIGNATURE = b"# GRUB Environment Block\n"
FILLER = b"#"


def parse(block: bytes) -> dict[str, str]:
    """Read a block's names and values; ValueError when it is not one."""
    if len(block) < SIZE or not block.startswith(SIGNATURE):
        raise ValueError("not a GRUB environment block")
    names: dict[str, str] = {}
    for line in _lines(block[len(SIGNATURE) : SIZE].decode("utf-8", "replace")):
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            names[name] = value
    return names


def render(names: dict[str, str]) -> bytes:
    """Write a block; ValueError when the values do not fit."""
    lines = [f"{name}={_escaped(value)}\n".encode() for name, value in names.items()]
    block = SIGNATURE + b"".join(lines)
    if len(block) > SIZE:
        raise ValueError(f"{len(block)} bytes do not fit into a GRUB environment block of {SIZE}")
    return block + FILLER * (SIZE - len(block))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\\n")


def _lines(text: str) -> list[str]:
    """Split at line ends that no backslash stands before, and take the backslashes off."""
    lines, line, characters = [], "", iter(text)
    for character in characters:
        if character == "\\":
            line += next(characters, "")
        elif character == "\n":
            lines.append(line)
            line = ""
        else:
            line += character
    return lines
