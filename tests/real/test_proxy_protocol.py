"""PROXY protocol: nginx and HAProxy learn from the header who the client is, and HAProxy the session's id."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from tests.e2e import needs
from tests.e2e.gateway import Gateway, rule, ruleset
from tests.e2e.peers import connect, name_of, read_to_end
from tests.e2e.tunnel import tunnel
from tests.real.programs import Address, answers, find, folder_of, free_address, plain_user, running

NGINX = """\
daemon off;
{user}
error_log stderr;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {host}:{port} proxy_protocol;
        location / {{
            return 200 "{said} id=";
        }}
    }}
}}
"""

HAPROXY = """\
defaults
    mode http
    timeout client 20s
frontend who
    bind {host}:{port} accept-proxy
    http-request return content-type text/plain lf-string "{said} id=%[fc_pp_unique_id]"
"""

NGINX_SAYS = " ".join(f"$proxy_protocol_{what}" for what in ("addr", "port", "server_addr", "server_port"))
HAPROXY_SAYS = "%[src] %[src_port] %[dst] %[dst_port]"

Server = Callable[[], AbstractContextManager[Address]]


@contextmanager
def nginx() -> Iterator[Address]:
    """Run nginx; it says whom the header names and where that one came in."""
    server, user = find("nginx"), plain_user("www-data", "nobody")
    with folder_of(user) as folder:
        host, port = free_address()
        words = "" if user is None else f"user {user.pw_name};"
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(host=host, port=port, user=words, said=NGINX_SAYS))
        command = [server, "-p", str(folder), "-c", str(config), "-e", "stderr"]
        with running(command, lambda: answers((host, port)), folder):
            yield host, port


@contextmanager
def haproxy() -> Iterator[Address]:
    """Run HAProxy; it says the same, and the unique id of version 2."""
    server = find("haproxy")
    with folder_of(None) as folder:
        host, port = free_address()
        config = folder / "haproxy.cfg"
        config.write_text(HAPROXY.format(host=host, port=port, said=HAPROXY_SAYS))
        with running([server, "-db", "-f", str(config)], lambda: answers((host, port)), folder):
            yield host, port


def asked(address: tuple[str, int]) -> tuple[str, list[str]]:
    """Ask over HTTP; give one's own address, and the words of the answer."""
    with connect(address) as client:
        client.sendall(b"GET / HTTP/1.0\r\nHost: who\r\n\r\n")
        head, _, body = read_to_end(client).decode().partition("\r\n\r\n")
        assert " 200 " in head.partition("\r\n")[0], head
        return name_of(client), body.split()


def check(own: str, words: list[str], reached: tuple[str, int], session: str) -> None:
    """Hold what the endpoint says against what is so; `session` is empty where it is told no id."""
    client, client_port, local, local_port, unique = words
    assert own == (f"[{client}]:{client_port}" if ":" in client else f"{client}:{client_port}")
    assert (local, int(local_port)) == reached
    assert unique == f"id={session}"


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("server", [nginx, haproxy])
def test_a_server_learns_who_the_client_is(server: Server, version: str) -> None:
    """Over IPv4 and IPv6: its address and where it came in; with version 2 the id of the record, too."""
    needs.ipv6()
    with ExitStack() as stack:
        host, port = stack.enter_context(server())
        text = ruleset(
            rule("four", f"{host}:{port}", proxy_protocol=version),
            rule("six", f"{host}:{port}", "[::1]:0", proxy_protocol=version),
        )
        gateway = stack.enter_context(Gateway.start(text))
        for count, (name, at) in enumerate((("four", "127.0.0.1"), ("six", "::1")), 1):
            reached = (at, gateway.port(name))
            own, words = asked(reached)
            record = gateway.sessions(count)[-1]
            assert record["client"] == own
            check(own, words, reached, record["session"] if server is haproxy and version == "v2" else "")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_out_of_an_agent(version: str) -> None:
    """The agent says what the gateway knows: the client, where it came in, and one id for both logs."""
    with haproxy() as (host, port):
        rules = rule("web", f"{host}:{port}", via="office", proxy_protocol=version)
        with tunnel(rules) as world:
            reached = world.gateway.address("web")
            own, words = asked(reached)
            record = world.gateway.session()
            check(own, words, reached, record["session"] if version == "v2" else "")
            (carried,) = world.agent.sessions()
            assert (carried["session"], carried["client"]) == (record["session"], own)
