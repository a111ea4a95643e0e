"""The server name in a ClientHello, seen before the handshake."""

import pytest

from appliance.wire.client_hello import LONGEST, MOST_RECORDS, ClientHello, Needs, NotTls, look
from tests.unit.wire.hellos import body, extension, message, named, of_openssl, record, records, vector

NAME = "a0of2.gateway.portway"
WHOLE = record(message(body(extension(16, b"abc") + named(NAME.encode()) + extension(43, b"\x02\x03\x04"))))


@pytest.mark.parametrize("name", [NAME, "w1.gateway.portway", "x" * 63, None])
def test_what_openssl_sends(name: str | None) -> None:
    """The name is found in what OpenSSL sends; what comes behind it does not matter."""
    hello = of_openssl(name, "portway/1")
    assert look(hello) == ClientHello(name)
    assert look(hello + b"\x14\x03\x03\x00\x01\x01") == ClientHello(name)


def test_every_beginning_says_how_much_is_needed() -> None:
    """Each is short by what it says: more than there is, never more than there will be."""
    for size in range(len(WHOLE)):
        found = look(WHOLE[:size])
        assert isinstance(found, Needs)
        assert size < found.total <= len(WHOLE)
    assert look(b"") == Needs(5)
    assert look(WHOLE[:5]) == Needs(len(WHOLE))
    assert look(WHOLE) == ClientHello(NAME)


@pytest.mark.parametrize("sizes", [(1,), (4,), (3, 1, 1), (50,), (20, 20, 20)])
def test_several_records(sizes: tuple[int, ...]) -> None:
    """A ClientHello may come in pieces; each beginning of it needs more."""
    hello = records(message(body(named(NAME.encode()))), *sizes)
    assert look(hello) == ClientHello(NAME)
    for size in range(len(hello)):
        found = look(hello[:size])
        assert isinstance(found, Needs)
        assert size < found.total <= len(hello)


def test_no_name() -> None:
    """No extensions, or others only: a ClientHello all the same."""
    assert look(record(message(body(None)))) == ClientHello(None)
    assert look(record(message(body(b"")))) == ClientHello(None)
    assert look(record(message(body(extension(16, b"x"))))) == ClientHello(None)


def test_an_offer_to_resume() -> None:
    """It is told, wherever it is among the extensions."""
    offer = extension(41, b"x")
    name = named(NAME.encode())
    for extensions in (name + offer, offer + name):
        assert look(record(message(body(extensions)))) == ClientHello(NAME, resumes=True)
    assert look(record(message(body(offer)))) == ClientHello(None, resumes=True)


def test_the_case_of_a_name_does_not_count() -> None:
    """It comes in lower case."""
    assert look(record(message(body(named(b"A0OF2.Gateway.Portway"))))) == ClientHello(NAME)


def test_the_longest() -> None:
    """A record of the greatest length is looked at; a ClientHello that would be longer is refused at once."""
    room = 16384 - len(message(body(extension(21, b""))))
    assert look(record(message(body(extension(21, bytes(room)))))) == ClientHello(None)
    longer = message(body(extension(21, bytes(room + 1))))
    assert isinstance(look(records(longer, 100)[:200]), NotTls)
    assert isinstance(look(records(longer, 100)), NotTls)


def test_many_records() -> None:
    """So many are looked at, and one more is none of ours: each costs another look."""
    content = message(body(named(NAME.encode())))
    most = [1] * (MOST_RECORDS - 1)
    assert look(records(content, *most)) == ClientHello(NAME)
    hello = records(content, *most, 1)
    looks = seen = 0
    while isinstance(found := look(hello[:seen]), Needs):
        assert seen < found.total <= LONGEST
        seen = found.total
        looks += 1
    assert isinstance(found, NotTls)
    assert looks <= 2 * MOST_RECORDS + 2


@pytest.mark.parametrize(
    "data",
    [
        *(b"G", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\0", b"PWT1\0", b"\x80\x2e\x01\x03\x01"),
        *(
            b"\x15\x03\x01\0\x02\x01\0",
            b"\x16\x02",
            b"\x16\x03\x05",
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\x40\x01",
        ),
        *(record(message(b"x", 2)), record(message(b"x", 2))[:6], record(message(body(None)) + b"x")),
        *(record(message(b"")), record(message(bytes(34))), record(message(body(None) + b"\0"))),
        record(message(body(b"") + b"\0")),
        record(message(body(None, session=bytes(33)))),
        record(message(body(None, suites=b""))),
        record(message(body(None, suites=b"\0\1\2"))),
        record(message(body(None, methods=b""))),
        record(message(body(named(b"a") + named(b"b")))),
        record(message(body(extension(5, b"") * 2))),
        *(record(message(body(b"\0"))), record(message(body(b"\0\0\0\x05abcd")))),
        *(record(message(body(named(b"")))), record(message(body(named(b"a" * 256))))),
        *(record(message(body(named(b"a\0b")))), record(message(body(named("é".encode()))))),
        record(message(body(named(b"a", kind=1)))),
        record(message(body(extension(0, b"")))),
        record(message(body(extension(0, vector(2, b""))))),
        record(message(body(extension(0, vector(2, b"\0" + vector(2, b"a") + b"\0" + vector(2, b"b")))))),
        record(message(body(extension(0, vector(2, b"\0" + vector(2, b"a")) + b"x")))),
        records(message(body(None)), 10)[:15] + b"\x17",
    ],
)
def test_what_is_none(data: bytes) -> None:
    """Refused, with a reason that can be shown."""
    found = look(data)
    assert isinstance(found, NotTls)
    assert found.why.isprintable()
