"""The CA: what it signs, and what it does not."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from appliance.tunnel.authority import (
    Authority,
    AuthorityError,
    key_pem,
    load_authority,
    new_key,
    open_authority,
    request_for,
    requested_key,
)
from appliance.tunnel.state import State

OLD = "1" * 32


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return open_authority(State(f"{tmp_path}/state"))


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str = "lab") -> str:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def test_it_stays_the_same(authority: Authority) -> None:
    """Opened again, it is the CA that it was; agents that trust it still do."""
    assert open_authority(authority.state).certificate == authority.certificate


def test_a_certificate_lost_is_made_anew_from_the_key(authority: Authority) -> None:
    """A crash between key and certificate leaves what the next one completes."""
    key = Path(authority.state.path, "ca.key").read_bytes()
    Path(authority.state.path, "ca.pem").unlink()
    open_authority(authority.state)
    assert Path(authority.state.path, "ca.key").read_bytes() == key


def numbers_of(key: object) -> ec.EllipticCurvePublicNumbers:
    """Give what makes a key: version 38 compares keys by identity."""
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_numbers()


def end_of(certificate: x509.Certificate) -> float:
    """Tell when a certificate expires: version 38, which is frozen, has another name for it."""
    later = getattr(certificate, "not_valid_after_utc", None)
    end: datetime = later or certificate.not_valid_after.replace(tzinfo=UTC)
    return end.timestamp()


def test_what_an_agent_gets(authority: Authority) -> None:
    """A certificate in its name, which the record has by its serial, good for as long as was said."""
    issued = authority.enrol("office", 1e9 + 0.5, 1000.0)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=office"
    assert f"{certificate.serial_number:x}" == issued.record.serial
    assert end_of(certificate) == issued.record.expires == 1e9 + 1000
    assert len(issued.record.serial) == 32
    assert authority.state.enrolled()[0].serial == issued.record.serial


def test_of_a_request_only_the_key_counts(authority: Authority) -> None:
    """The name in it is not looked at: an agent cannot become another."""
    key = new_key()
    issued = authority.renew("office", OLD, request(key, "lab"), 1e9)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=office"
    assert numbers_of(certificate.public_key()) == key.public_key().public_numbers()
    assert (issued.key, issued.record.replaces) == ("", OLD)


def test_what_was_taken_back_is_not_renewed(authority: Authority) -> None:
    """Not even in the moment of the request: the new certificate is then taken back, too."""
    authority.state.mark_revoked(OLD)
    with pytest.raises(AuthorityError, match="taken back"):
        authority.renew("office", OLD, request_for(new_key()), 1e9)
    assert [one.revoked for one in authority.state.enrolled()] == [True]


def tampered() -> str:
    """Give a request that its key did not sign."""
    parsed = x509.load_pem_x509_csr(request(new_key()).encode())
    der = bytearray(parsed.public_bytes(serialization.Encoding.DER))
    at = bytes(der).index(b"lab")
    der[at : at + 3] = b"lob"
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "no certificate request"),
        ("é", "no certificate request"),
        (key_pem(new_key()), "no certificate request"),
        (request(rsa.generate_private_key(65537, 2048)), "P-256"),
        (request(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (tampered(), "signature"),
    ],
    ids=["nothing", "no ASCII", "a key", "RSA", "P-384", "not its own"],
)
def test_requests_that_are_refused(wrong: str, why: str) -> None:
    """What is no request, or for a key of another kind, or not signed by the key it names."""
    with pytest.raises(AuthorityError, match=why):
        requested_key(wrong)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_a_damaged_ca_is_told(authority: Authority, name: str) -> None:
    """It is never made anew over what is there: every agent would have to be enrolled again."""
    path = Path(authority.state.path, name)
    path.write_text("nonsense")
    with pytest.raises(AuthorityError, match=name):
        open_authority(authority.state)
    assert path.read_text() == "nonsense"


def test_key_and_certificate_of_two_cas(authority: Authority, tmp_path: Path) -> None:
    """They are not taken for one."""
    other = open_authority(State(f"{tmp_path}/other"))
    Path(authority.state.path, "ca.pem").write_text(other.certificate)
    with pytest.raises(AuthorityError, match="belong together"):
        load_authority(authority.state)
