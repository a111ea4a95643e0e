"""Whatever a gateway says of a client: a header that a receiver reads."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.ruleset import ProxyProtocol
from appliance.wire.proxy_protocol import header
from tests.unit.wire.receiving import receive

ports = st.integers(0, 70000)
texts = (
    st.builds("{}:{}".format, st.ip_addresses(v=4), ports)
    | st.builds("[{}]:{}".format, st.ip_addresses(v=6), ports)
    | st.text(max_size=30)
    | st.text(alphabet="0123456789.:[]%\r\n ", max_size=30)
)


@settings(max_examples=500)
@given(st.sampled_from(ProxyProtocol), texts, texts, st.text(max_size=150))
def test_any_texts(version: ProxyProtocol, client: str, local: str, session: str) -> None:
    """Addresses or not, mixed or not: one whole header, and nothing behind it."""
    found, rest = receive(header(version, client, local, session))
    assert rest == b""
    assert (found.source is None) == (found.destination is None)
