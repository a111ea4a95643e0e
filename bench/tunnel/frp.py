"""frp: as it comes, all sessions in one connection, and with a connection for each and a pool of them."""

from functools import partial
from pathlib import Path

from bench.tunnel.built import FRP, absence
from bench.tunnel.pair import ENCRYPTED, PLAIN, Ends, Site, Tunnel

# Connections that frpc keeps ready without multiplexing: as many as the loads have clients.
POOL = 32


def _transport(*, pooled: bool) -> str:
    return f"transport.tcpMux = {'false' if pooled else 'true'}\n"


def frps_config(site: Site, *, pooled: bool) -> str:
    """Write what frps runs on. It takes clients with TLS and without; its certificate is its own."""
    host, port = site.tunnel
    return (
        f'bindAddr = "{host}"\nbindPort = {port}\nproxyBindAddr = "{host}"\n'
        f'log.level = "warn"\n{_transport(pooled=pooled)}'
        + (f"transport.maxPoolCount = {POOL}\n" if pooled else "")
    )


def frpc_config(site: Site, *, pooled: bool, tls: bool) -> str:
    """Write what frpc runs on: a proxy for each route."""
    host, port = site.dial
    proxies = "".join(
        f'\n[[proxies]]\nname = "{route.name}"\ntype = "tcp"\nlocalIP = "{route.way.to[0]}"\n'
        f"localPort = {route.way.to[1]}\nremotePort = {route.listen[1]}\n"
        for route in site.routes
    )
    return (
        f'serverAddr = "{host}"\nserverPort = {port}\nloginFailExit = false\nlog.level = "warn"\n'
        f"transport.tls.enable = {'true' if tls else 'false'}\n{_transport(pooled=pooled)}"
        + (f"transport.poolCount = {POOL}\n" if pooled else "")
        + proxies
    )


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _prepare(site: Site, *, pooled: bool, tls: bool) -> Ends:
    server = _write(site.directory / "frps.toml", frps_config(site, pooled=pooled))
    client = _write(site.directory / "frpc.toml", frpc_config(site, pooled=pooled, tls=tls))
    return Ends([str(FRP / "frps"), "-c", str(server)], [str(FRP / "frpc"), "-c", str(client)])


def _tunnel(key: str, title: str, *, pooled: bool, tls: bool) -> Tunnel:
    return Tunnel(
        key,
        title,
        "frp",
        ENCRYPTED if tls else PLAIN,
        partial(absence, FRP / "frpc"),
        partial(_prepare, pooled=pooled, tls=tls),
    )


TUNNELS = (
    _tunnel("frp-tls", "frp, TLS", pooled=False, tls=True),
    _tunnel("frp-tls-pool", "frp, TLS, no mux", pooled=True, tls=True),
    _tunnel("frp-plain", "frp", pooled=False, tls=False),
    _tunnel("frp-plain-pool", "frp, no mux", pooled=True, tls=False),
)
