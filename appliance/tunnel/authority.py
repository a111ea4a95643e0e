"""The CA of a gateway, which vouches for its agents and for itself.

The CA's certificate and the gateway's own are good at any time (RFC 5280, 4.1.2.5: 99991231235959Z is for "no
well-defined expiration"). Agents trust this CA and nothing else, and the gateway's key is made anew at each
start and never leaves its memory: all that would end with a date is the service. So an agent whose host does
not know the time still finds its gateway. Agents' certificates do expire, by the gateway's clock.

Keys are P-256 (ECDSA with SHA-256). `cryptography` is large: only who has a tunnel imports it.
"""

import datetime as dt
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from appliance.tunnel.state import PUBLIC, SECRET, Record, State

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

GATEWAY_NAME: Final = "gateway.portway"
"""Whom an agent wants to talk to: this name, and any below it."""

VALID: Final = 365 * 86400.0
"""How long an agent's certificate is good, in seconds, unless the operator says otherwise."""

_KEY: Final = "ca.key"
_CERTIFICATE: Final = "ca.pem"

_BACKDATED: Final = 86400.0
"""How far behind a gateway's clock may be when an agent first comes, in seconds."""

_ALWAYS: Final = (
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
)


class AuthorityError(ValueError):
    """What is to be a key, certificate or request is none, or none that is taken: a clause says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """An agent's new certificate (PEM), and what is kept of it.

    `key` (PEM) is empty where the agent brought its own.
    """

    record: Record
    certificate: str
    key: str = ""


class Authority:
    """The CA of a state directory, loaded. Made before a fork, it serves all the processes."""

    __slots__ = ("_ca", "_key", "certificate", "state")

    def __init__(
        self, state: State, key: "ec.EllipticCurvePrivateKey", ca: "x509.Certificate", certificate: str
    ) -> None:
        self.state = state
        self._key = key
        self._ca = ca
        self.certificate = certificate
        """The CA's own (PEM), which agents trust."""

    def enrol(self, name: str, now: float, valid: float = VALID) -> Issued:
        """Make a key and certificate for an agent, good for `valid` seconds. Raises OSError."""
        key = new_key()
        record = _record(name, now, valid)
        certificate = self._agent(record, key.public_key())
        self.state.record(record)
        return Issued(record, certificate, key_pem(key))

    def renew(self, name: str, serial: str, request: str, now: float, valid: float = VALID) -> Issued:
        """Make the certificate that an agent asks for who showed the one of `serial`.

        Of the request (PKCS #10, PEM) its key counts, and nothing else: the agent's name stays. Raises
        AuthorityError, also where the old certificate was taken back in this moment, and OSError.
        """
        key = requested_key(request)
        record = _record(name, now, valid, replaces=serial)
        certificate = self._agent(record, key)
        self.state.record(record)
        if self.state.is_revoked(serial):  # after the record is kept: see State.revoke
            self.state.mark_revoked(record.serial)
            raise AuthorityError("the certificate was taken back")
        return Issued(record, certificate)

    def serve(self) -> tuple[str, str]:
        """Make the gateway's own certificate and key (PEM), for this process and its children."""
        from cryptography import x509  # noqa: PLC0415  see above
        from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415  see above

        key = new_key()
        names = [x509.DNSName(GATEWAY_NAME), x509.DNSName(f"*.{GATEWAY_NAME}")]
        builder = _builder(GATEWAY_NAME, key.public_key(), int(_serial(), 16), _ALWAYS)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._signed(builder, ExtendedKeyUsageOID.SERVER_AUTH), key_pem(key)

    def _agent(self, record: Record, key: "ec.EllipticCurvePublicKey") -> str:
        from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415  see above

        period = (_time(record.issued - _BACKDATED), _time(record.expires))
        builder = _builder(record.name, key, int(record.serial, 16), period)
        return self._signed(builder, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _signed(self, builder: "x509.CertificateBuilder", usage: "x509.ObjectIdentifier") -> str:
        from cryptography import x509  # noqa: PLC0415  see above
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  see above

        of_ca = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            builder.issuer_name(self._ca.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(of_ca, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def open_authority(state: State) -> Authority:
    """Load the CA of a state directory; the first to want it makes it. Raises OSError and AuthorityError."""
    try:
        return load_authority(state)
    except FileNotFoundError:
        with state.locked():
            _make(state)
        return load_authority(state)


def load_authority(state: State) -> Authority:
    """Load the CA of a state directory. Raises OSError and AuthorityError."""
    from cryptography import x509  # noqa: PLC0415  see above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  see above

    key = _load_key(state)
    text = state.read(_CERTIFICATE)
    try:
        ca = x509.load_pem_x509_certificate(text)
        certificate = text.decode("ascii")
    except ValueError as error:
        raise AuthorityError(f"{state.path}/{_CERTIFICATE} holds no certificate: {error}") from None
    public = ca.public_key()
    of_key = key.public_key().public_numbers()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.public_numbers() != of_key:
        raise AuthorityError(f"{state.path}/{_CERTIFICATE} and {_KEY} do not belong together")
    return Authority(state, key, ca, certificate)


def _make(state: State) -> None:
    """Make what is missing, under the lock: the key, and from it the certificate."""
    try:
        key = _load_key(state)
    except FileNotFoundError:
        key = new_key()
        state.write(_KEY, key_pem(key).encode(), SECRET)
    try:
        state.read(_CERTIFICATE)
    except FileNotFoundError:
        state.write(_CERTIFICATE, _self_signed(key), PUBLIC)


def _load_key(state: State) -> "ec.EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  see above
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  see above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  see above

    text = state.read(_KEY)
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthorityError(f"{state.path}/{_KEY} holds no key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{state.path}/{_KEY} holds no key of an elliptic curve")
    return key


def _self_signed(key: "ec.EllipticCurvePrivateKey") -> bytes:
    from cryptography import x509  # noqa: PLC0415  see above
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  see above

    serial = _serial()
    # No two CAs share a name, or one's certificates would look to the other's users like forged ones.
    builder = _builder(f"Portway CA {serial[:16]}", key.public_key(), int(serial, 16), _ALWAYS)
    builder = (
        builder.issuer_name(_name(f"Portway CA {serial[:16]}"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def new_key() -> "ec.EllipticCurvePrivateKey":
    """Make a key of the kind that is used here throughout."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  see above

    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: "ec.EllipticCurvePrivateKey") -> str:
    """Write a key as PEM (PKCS #8, not encrypted)."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  see above

    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


def request_for(key: "ec.EllipticCurvePrivateKey") -> str:
    """Write the request (PKCS #10, PEM) for a certificate of a key; it names nobody."""
    from cryptography import x509  # noqa: PLC0415  see above
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  see above

    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def requested_key(request: str) -> "ec.EllipticCurvePublicKey":
    """Give the key of a request, whose sender has the private half, too. Raises AuthorityError."""
    from cryptography import x509  # noqa: PLC0415  see above
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  see above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  see above

    try:
        parsed = x509.load_pem_x509_csr(request.encode())
        key = parsed.public_key()
        is_signed = parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthorityError(f"it is no certificate request: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AuthorityError("its key is not of P-256")
    if not is_signed:
        raise AuthorityError("its signature is wrong")
    return key


def _record(name: str, now: float, valid: float, replaces: str = "") -> Record:
    return Record(name=name, serial=_serial(), issued=now, expires=float(int(now + valid)), replaces=replaces)


def _serial() -> str:
    """Give 126 random bits, and one before them: always 32 digits, and positive (RFC 5280, 4.1.2.2)."""
    return f"{int.from_bytes(os.urandom(16)) >> 2 | 1 << 126:032x}"


def _time(seconds: float) -> dt.datetime:
    return max(_ALWAYS[0], dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=0))


def _name(text: str) -> "x509.Name":
    from cryptography import x509  # noqa: PLC0415  see above
    from cryptography.x509.oid import NameOID  # noqa: PLC0415  see above

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    name: str, key: "ec.EllipticCurvePublicKey", serial: int, period: tuple[dt.datetime, dt.datetime]
) -> "x509.CertificateBuilder":
    from cryptography import x509  # noqa: PLC0415  see above

    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(period[0])
        .not_valid_after(period[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, ca: bool) -> "x509.KeyUsage":
    """Give what a key may do: the CA's signs certificates, the others' sign handshakes."""
    from cryptography import x509  # noqa: PLC0415  see above

    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
