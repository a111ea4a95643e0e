"""The session that an agent resumes: of the context in use, learned once, forgotten when it is no good."""

import ssl
from contextlib import closing

from appliance.net.tls import TlsSocket
from appliance.tunnel.resumption import Resumption
from tests.tls import client_context, secure
from tests.unit.net.loop import tcp_pair


def read_ticket(client: TlsSocket, server: TlsSocket) -> None:
    """Read something, and so what comes before it."""
    server.send(b"!")
    while True:
        try:
            assert client.recv(1) == b"!"
        except BlockingIOError:
            continue
        return


def test_a_session_is_learned_with_its_ticket() -> None:
    """Before the first read there is none; afterwards it is resumed, and no later one takes its place."""
    resumption, context = Resumption(), client_context()
    client, server = secure(*tcp_pair())
    with closing(client), closing(server):
        resumption.learn(client, context)
        assert resumption.session(context) is None
        read_ticket(client, server)
        resumption.learn(client, context)
    session = resumption.session(context)
    assert session is not None
    again, server = secure(*tcp_pair(), session=session)
    with closing(again), closing(server):
        assert again.session_reused
        read_ticket(again, server)
        resumption.learn(again, context)
    assert resumption.session(context) is session


def test_a_session_is_of_one_context() -> None:
    """With another certificate there is none, and a connection of before teaches none."""
    resumption, renewed = Resumption(), ssl.create_default_context()
    client, server = secure(*tcp_pair())
    with closing(client), closing(server):
        read_ticket(client, server)
        resumption.learn(client, renewed)
        assert resumption.session(renewed) is None
        resumption.learn(client, client_context())
    assert resumption.session(renewed) is None
    assert resumption.session(client_context()) is not None
    assert resumption.session(None) is None


def test_it_is_forgotten() -> None:
    """What failed is not tried again, and the next one is learned."""
    resumption, context = Resumption(), client_context()
    client, server = secure(*tcp_pair())
    with closing(client), closing(server):
        read_ticket(client, server)
        resumption.learn(client, context)
        resumption.forget()
        assert resumption.session(context) is None
        resumption.learn(client, context)
    assert resumption.session(context) is not None
