"""The keys of peers that bring none: rathole's TLS asks for a PKCS #12 file and the CA that made it."""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12
from cryptography.x509.oid import NameOID

NAME = "gateway.bench"
# It keeps nothing: the key is good for a day and for the benchmark alone.
PASSWORD = "bench"  # noqa: S105
VALID = dt.timedelta(days=1)


def write_identity(directory: Path, now: dt.datetime) -> tuple[Path, Path]:
    """Make a P-256 key for NAME, certified by itself for a day: the PKCS #12 file, and the root as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    identity, root = directory / "identity.pfx", directory / "root.pem"
    root.write_bytes(certificate.public_bytes(Encoding.PEM))
    encryption = BestAvailableEncryption(PASSWORD.encode())
    identity.write_bytes(
        pkcs12.serialize_key_and_certificates(NAME.encode(), key, certificate, None, encryption)
    )
    return identity, root
