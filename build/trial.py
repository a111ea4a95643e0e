"""What the tunnel needs of `cryptography` and `ssl`, tried with what was frozen. Run by selftest.py.

A script of its own on the program's archive of modules (portway.spec), which is not shipped. PyInstaller does
not look into it: what it finds is there because the program asks for it.
"""

import os
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

GATEWAY: Final = "w0.gateway.portway"
ALPN: Final = "portway/1"
EPOCH: Final = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
PEM: Final = serialization.Encoding.PEM


class Holder:
    """A key, and the certificate that the authority gave for it."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = b""

    def request(self) -> bytes:
        """Ask for a certificate (PKCS #10)."""
        made = x509.CertificateSigningRequestBuilder().subject_name(self.name).sign(self.key, hashes.SHA256())
        return made.public_bytes(PEM)

    def pem(self) -> bytes:
        """Give the certificate, and the key as it is stored: written, read back, written."""
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        stored = self.key.private_bytes(PEM, *plain)
        read = serialization.load_pem_private_key(stored, password=None)
        return self.certificate + read.private_bytes(PEM, *plain)


def authority() -> Holder:
    """Make an authority with a certificate of its own."""
    made = Holder("Portway")
    builder = certificate(made, made.name, made.key.public_key())
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    signed = builder.add_extension(constraints, critical=True).sign(made.key, hashes.SHA256())
    made.certificate = signed.public_bytes(PEM)
    return made


def certificate(
    issuer: Holder, subject: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """Begin a certificate."""
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer.name)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(EPOCH - timedelta(hours=1))
        .not_valid_after(EPOCH + timedelta(days=1))
    )


def sign(issuer: Holder, request: bytes, usage: x509.ObjectIdentifier) -> bytes:
    """Answer a request, whose signature must be that of its key."""
    asked = x509.load_pem_x509_csr(request)
    key = asked.public_key()
    assert asked.is_signature_valid
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signed = (
        certificate(issuer, asked.subject, key)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.gateway.portway")]), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    read = x509.load_pem_x509_certificate(signed.public_bytes(PEM))
    assert read.serial_number == signed.serial_number
    return signed.public_bytes(PEM)


def context(protocol: int, mine: Holder, trusted: Holder) -> ssl.SSLContext:
    """Make a context that trusts one authority, from memory alone."""
    made = ssl.SSLContext(protocol)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.set_alpn_protocols([ALPN])
    made.load_verify_locations(cadata=trusted.certificate.decode())
    fd = os.memfd_create("chain")
    os.write(fd, mine.pem())
    made.load_cert_chain(f"/proc/self/fd/{fd}")
    os.close(fd)
    return made


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let both speak through memory until both are done."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up, server_hostname=GATEWAY)
    answering = server.wrap_bio(up, down, server_side=True)
    waiting = [asking, answering]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    return asking, answering


def libraries(word: str) -> set[str]:
    """Name the files with that word in their name that are mapped into this process (proc(5), maps)."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if word in line.rpartition("/")[2]}


def main() -> None:
    """Try it, or end with a traceback."""
    trusted, gateway, agent = authority(), Holder("gateway"), Holder("office")
    gateway.certificate = sign(trusted, gateway.request(), ExtendedKeyUsageOID.SERVER_AUTH)
    agent.certificate = sign(trusted, agent.request(), ExtendedKeyUsageOID.CLIENT_AUTH)
    asking, answering = shake_hands(
        context(ssl.PROTOCOL_TLS_CLIENT, agent, trusted), context(ssl.PROTOCOL_TLS_SERVER, gateway, trusted)
    )
    asking.write(b"there")
    assert answering.read(100) == b"there"
    assert (asking.version(), asking.selected_alpn_protocol()) == ("TLSv1.3", ALPN)
    shown = answering.getpeercert(binary_form=True)
    assert shown is not None
    assert x509.load_der_x509_certificate(shown).subject == agent.name
    own = str(Path(sys._MEIPASS).resolve())  # type: ignore[attr-defined]  # noqa: SLF001  PyInstaller's name
    for library in ("libcrypto", "libssl", "legacy", "_rust", "_openssl"):
        (found,) = libraries(library)
        assert found.startswith(own), found
    print(f"{ssl.OPENSSL_VERSION}, {asking.version()}")


if __name__ == "__main__":
    main()
