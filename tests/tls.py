"""Certificates for tests: a CA and two leafs, made once per run, and the contexts of both sides."""

import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar, overload

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.net.sockets import Socket
from appliance.net.tls import TlsSocket

SERVER_NAME = "gateway.portway"
CLIENT_NAME = "office"


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key: PEM, one after the other."""

    pem: bytes

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have the context present it; OpenSSL reads it from a file that has no name."""
        fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(fd, self.pem)
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)


class Authority:
    """A CA of P-256."""

    def __init__(self, name: str = "CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(Encoding.PEM).decode()

    def leaf(self, name: str, *, server: bool) -> Leaf:
        """Make a certificate of the name."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = _builder(_name(name), self._name, key.public_key()).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if server:
            names = [x509.DNSName(name), x509.DNSName(f"*.{name}")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Leaf(certificate.public_bytes(Encoding.PEM) + private)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


@lru_cache(maxsize=1)
def authority() -> Authority:
    """Give the CA of this run."""
    return Authority()


@lru_cache(maxsize=1)
def server_context() -> ssl.SSLContext:
    """Give a server's context, which demands a certificate of the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _complete(context, authority().leaf(SERVER_NAME, server=True))


@lru_cache(maxsize=1)
def client_context() -> ssl.SSLContext:
    """Give a client's context."""
    return client_of(authority())


def client_of(issuer: Authority) -> ssl.SSLContext:
    """Give the context of a client with a certificate of this issuer; the server's is of this run's CA."""
    return _complete(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), issuer.leaf(CLIENT_NAME, server=False))


def _complete(context: ssl.SSLContext, leaf: Leaf) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority().pem)
    leaf.load_into(context)
    return context


Kind = TypeVar("Kind", bound=TlsSocket)


@overload
def secure(
    one: Socket, other: Socket, *, session: ssl.SSLSession | None = None
) -> tuple[TlsSocket, TlsSocket]: ...
@overload
def secure(
    one: Socket, other: Socket, *, session: ssl.SSLSession | None = None, kind: type[Kind]
) -> tuple[Kind, TlsSocket]: ...
def secure(
    one: Socket,
    other: Socket,
    *,
    session: ssl.SSLSession | None = None,
    kind: type[TlsSocket] = TlsSocket,
) -> tuple[TlsSocket, TlsSocket]:
    """Shake hands over two connected sockets: the client's, of a kind of TlsSocket, and the server's."""
    dialling = kind(one, client_context(), server_side=False, server_hostname=SERVER_NAME, session=session)
    accepted = TlsSocket(other, server_context(), server_side=True)
    unfinished = [dialling, accepted]
    while unfinished:
        for each in tuple(unfinished):
            with suppress(ssl.SSLWantReadError):
                each.do_handshake()
                unfinished.remove(each)
    return dialling, accepted
