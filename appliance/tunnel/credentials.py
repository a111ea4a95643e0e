"""The TLS of a tunnel: TLS 1.3, both sides show a certificate, and each trusts the gateway's CA alone."""

import os
import ssl
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Protocol, cast

from appliance.outcome import Refusal
from appliance.tunnel.authority import GATEWAY_NAME, Authority
from appliance.tunnel.join import Join

ALPN: Final = "portway/1"
"""What both sides say they speak, so that a proxy which looks at it can tell (RFC 7301)."""

_STRICT: Final = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_TRUSTED_FIRST

_REASONS: Final = MappingProxyType(
    {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": Refusal.NO_CERTIFICATE,
        "TLSV13_ALERT_CERTIFICATE_REQUIRED": Refusal.NO_CERTIFICATE,
        # An agent of another CA does not show its certificate: it ends the handshake at the sight of ours.
        "TLSV1_ALERT_UNKNOWN_CA": Refusal.UNKNOWN_CA,
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": Refusal.EXPIRED,
        "SSLV3_ALERT_CERTIFICATE_REVOKED": Refusal.REVOKED,
        "HTTP_REQUEST": Refusal.GARBAGE,
        "HTTPS_PROXY_REQUEST": Refusal.GARBAGE,
        "WRONG_VERSION_NUMBER": Refusal.GARBAGE,
        "UNKNOWN_PROTOCOL": Refusal.GARBAGE,
        "UNEXPECTED_MESSAGE": Refusal.GARBAGE,
        "BAD_RECORD_TYPE": Refusal.GARBAGE,
        "PACKET_LENGTH_TOO_LONG": Refusal.GARBAGE,
        "PACKET_LENGTH_TOO_SHORT": Refusal.GARBAGE,
        "RECORD_LENGTH_MISMATCH": Refusal.GARBAGE,
        "RECORD_TOO_SMALL": Refusal.GARBAGE,
        "RECORD_LAYER_FAILURE": Refusal.GARBAGE,
        "LENGTH_MISMATCH": Refusal.GARBAGE,
        "LENGTH_TOO_LONG": Refusal.GARBAGE,
        "EXCESSIVE_MESSAGE_SIZE": Refusal.GARBAGE,
    }
)
"""By OpenSSL's words (SSLError.reason). Alerts are among them: an agent learns so why it was refused."""

_VERIFY_CODES: Final = MappingProxyType(
    {
        2: Refusal.UNKNOWN_CA,  # unable to get issuer certificate
        7: Refusal.UNKNOWN_CA,  # certificate signature failure: forged in the name of this CA
        9: Refusal.EXPIRED,  # not yet valid
        10: Refusal.EXPIRED,
        18: Refusal.UNKNOWN_CA,  # self-signed
        19: Refusal.UNKNOWN_CA,  # self-signed certificate in the chain
        20: Refusal.UNKNOWN_CA,  # unable to get local issuer certificate
        21: Refusal.UNKNOWN_CA,  # unable to verify the first certificate
    }
)
"""OpenSSL's X509_V_ERR_*: openssl-verification-options(1), x509_vfy.h."""


def gateway_context(authority: Authority) -> ssl.SSLContext:
    """Make what a gateway's tunnel port needs, with a new key and certificate.

    To be made before workers are forked: the key of session tickets is in it, so a ticket that one worker
    gave is good at each. An agent that has none is given one (`door`).
    """
    return server_context(authority.certificate, *authority.serve())


def server_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """Make the same of what another process has made (PEM)."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, ca, certificate, key)
    context.num_tickets = 1
    return context


def agent_context(join: Join) -> ssl.SSLContext:
    """Make what an agent needs to reach its gateways.

    Raises ssl.SSLError where the key or a certificate is none, or they do not belong together.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, join.ca, join.certificate, join.key)
    context.check_hostname = True
    return context


def server_name(worker: str) -> str:
    """Give the name by which an agent asks for a worker: `a0of2`, `w1`."""
    return f"{worker}.{GATEWAY_NAME}"


def _context(protocol: int, ca: str, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags = _STRICT
    context.load_verify_locations(cadata=ca)
    context.set_alpn_protocols([ALPN])
    _load(context, certificate, key)
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Give a context its certificate and key; Python takes them from files only, so from one in memory."""
    fd = os.memfd_create("portway", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w", encoding="ascii") as stream:
        stream.write(f"{certificate.strip()}\n{key.strip()}\n")
        stream.flush()
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")


class Shown(Protocol):
    """A connection on which a certificate was shown: `net.tls.TlsSocket`, `ssl.SSLSocket`."""

    def getpeercert(self) -> Any:
        """Give it, as `ssl` does."""


def why(error: OSError) -> str:
    """Say in a few words why a connection that was secured, or to be, has ended."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, ssl.SSLEOFError):
        return "the other side closed without a word"
    if isinstance(cause, ssl.SSLError):
        return f"{refusal_of(cause)}: {cause.reason or cause}"
    return error.strerror or str(error)


def has_expired(tls: Shown, now: float) -> bool:
    """Say whether the other side's certificate has expired: OpenSSL does not look again on a resumption."""
    until = (cast("Any", tls.getpeercert()) or {}).get("notAfter")
    return isinstance(until, str) and _seconds(until) < now


@lru_cache(maxsize=1024)
def _seconds(until: str) -> float:
    return ssl.cert_time_to_seconds(until)  # 0.1 ms, and it is one agent's at each of its channels


def peer_of(tls: Shown) -> tuple[str, str]:
    """Give the name and the serial (as `state` has it) of the certificate that the other side showed.

    It is verified: a handshake with anybody else has failed. Raises ValueError where it is none of ours.
    """
    found = cast("Any", tls.getpeercert()) or {}  # typeshed has one type for all its values
    names = [value for rdn in found.get("subject", ()) for key, value in rdn if key == "commonName"]
    if len(names) != 1 or "serialNumber" not in found:
        raise ValueError("a certificate without a name or serial")
    return names[0], found["serialNumber"].lower()


def refusal_of(error: OSError) -> Refusal:
    """Say why a handshake failed, or why the other side ended a connection (ssl.SSLError and the rest)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_CODES.get(error.verify_code, Refusal.HANDSHAKE_FAILED)
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(error.reason or "", Refusal.HANDSHAKE_FAILED)
    return Refusal.TIMEOUT if isinstance(error, TimeoutError) else Refusal.HANDSHAKE_FAILED
