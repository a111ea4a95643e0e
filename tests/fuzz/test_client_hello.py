"""Whatever comes first on a connection: a ClientHello, none, or a bounded number of bytes to wait for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.wire.client_hello import LONGEST, ClientHello, Needs, NotTls, look
from appliance.wire.server_name import worker_meant
from tests.unit.wire.hellos import body, extension, message, named, of_openssl, records

HELLOS = (
    of_openssl("a0of2.gateway.portway", "portway/1"),
    of_openssl(None),
    records(message(body(extension(5, b"x") + named(b"w1.gateway.portway"))), 3, 40),
)


def hold(data: bytes) -> None:
    """Hold what is promised for any bytes."""
    found = look(data)
    if isinstance(found, Needs):
        assert len(data) < found.total <= LONGEST
        assert not isinstance(look(data[: len(data) // 2]), ClientHello | NotTls)
    elif isinstance(found, NotTls):
        assert found.why.isprintable()
        assert isinstance(look(data + b"\0"), NotTls)
    else:
        assert look(data + b"\0") == found
        assert worker_meant(found.server_name, 3) in {None, 0, 1, 2}


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Bytes of no meaning."""
    hold(data)
    hold(b"\x16\x03\x01" + data)


@settings(max_examples=500)
@given(st.binary(max_size=300), st.lists(st.integers(1, 60), max_size=4))
def test_any_handshake(data: bytes, sizes: list[int]) -> None:
    """Any bytes as a ClientHello, in any pieces."""
    hold(records(message(data), *sizes))
    hold(records(message(body(data)), *sizes))


@settings(max_examples=1000)
@given(st.sampled_from(HELLOS), st.data())
def test_a_hello_with_damage(hello: bytes, data: st.DataObject) -> None:
    """A right ClientHello with parts cut out, doubled or put in."""
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(hello)))
        end = begin + data.draw(st.integers(0, 8))
        hello = (
            hello[:begin]
            + data.draw(st.sampled_from([b"", hello[begin:end] * 2, b"\0", b"\xff"]) | st.binary(max_size=4))
            + hello[end:]
        )
    hold(hello)
