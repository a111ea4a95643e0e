"""Crates are found by what the compiler leaves of them."""

from pathlib import Path

import pytest

from build.crates import LICENCES, TEXTS, Crate, linked


def test_paths_name_crates(tmp_path: Path) -> None:
    """Debian's paths and cargo's own are known, each crate is named once, and Rust by its compiler."""
    debian, cargo = tmp_path / "debian.so", tmp_path / "cargo.so"
    debian.write_bytes(
        b"\0/usr/share/cargo/registry/pyo3-ffi-0.17.3/src/a.rs/usr/share/cargo/registry/pem-1.0.2/src/b.rs"
        b"/usr/share/cargo/registry/pem-1.0.2/src/c.rs\0/usr/src/rustc-1.63.0/library/core/src/d.rs"
    )
    cargo.write_bytes(b"/root/.cargo/registry/src/index-1949cf8c6b5b557f/asn1-0.20.0/src/parser.rs")
    assert linked([debian, cargo]) == [
        Crate("asn1", "0.20.0"),
        Crate("pem", "1.0.2"),
        Crate("pyo3-ffi", "0.17.3"),
        Crate("std", "1.63.0"),
    ]


def test_a_crate_that_nobody_knows_ends_the_build() -> None:
    """No crate is shipped whose licence nobody has looked up."""
    with pytest.raises(SystemExit, match="under which licence the crate surprise is"):
        _ = Crate("surprise", "1.0.0").licence


def test_every_text_is_there() -> None:
    """Each licence has its text, and no text is nobody's."""
    assert {path.name for path in TEXTS.iterdir()} == {text for _, text in LICENCES.values()}
