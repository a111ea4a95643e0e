"""How large the forms are, and that nothing is in them twice. Container and VM have tests of their own."""

from pathlib import Path

from build.parts import FOLDER
from tests.program import program

LARGEST_SINGLE = 13_000_000
LARGEST_FOLDER = 32_000_000


def test_the_single_file() -> None:
    """One file, with everything that certificates and TLS need, is no larger than 13 MB."""
    (path,) = program("single")
    assert Path(path).stat().st_size <= LARGEST_SINGLE


def test_the_folder() -> None:
    """Its files have no more than 32 MB together."""
    program("folder")
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= LARGEST_FOLDER


def test_there_is_one_openssl() -> None:
    """TLS (by RFC 8446's label, 4.4.3) and ciphers (by ChaCha20's constant) are in one library each."""
    program("folder")
    contents = {path.name: path.read_bytes() for path in FOLDER.rglob("*.so*")}
    for word, library in (
        (b"TLS 1.3, server CertificateVerify", "libssl.so.3"),
        (b"expand 32-byte k", "libcrypto.so.3"),
    ):
        assert [name for name, data in contents.items() if word in data] == [library]
