"""curl against nginx."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import needs
from tests.e2e.gateway import Gateway, Record, rule, ruleset
from tests.real.files import sha256, write_random
from tests.real.programs import Address, answers, find, folder_of, free_address, records, run, running

DOWNLOAD = 256 << 20
UPLOAD = 64 << 20
PAGE = b"a page\n"
REQUESTS = 100

CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    server {{
        listen {host}:{port};
        root {folder}/www;
        location /put/ {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running server and its files."""

    address: Address
    www: Path
    checksum: str
    """Of /large."""


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    """Run nginx with a configuration of its own."""
    server = find("nginx")
    find("curl")
    with folder_of(None) as folder:
        www = folder / "www"
        www.mkdir()
        (www / "page").write_bytes(PAGE)
        checksum = write_random(www / "large", DOWNLOAD)
        host, port = free_address()
        user = "" if os.geteuid() else "user root;"  # the folder is ours alone
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(user=user, folder=folder, host=host, port=port))
        command = [server, "-p", str(folder), "-e", "stderr", "-c", str(config)]
        with running(command, lambda: answers((host, port)), folder):
            yield Nginx((host, port), www, checksum)


@pytest.fixture
def gateway(nginx: Nginx) -> Iterator[Gateway]:
    """Give a gateway before it."""
    to = "{}:{}".format(*nginx.address)
    with Gateway.start(ruleset(rule("web", to), rule("web6", to, "[::1]:0"))) as started:
        yield started


def curl(*words: str) -> list[dict[str, Any]]:
    """Transfer, and give what the program reports of each transfer: `--write-out` in its manual."""
    silent = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--header", "Expect:"]
    said = run([find("curl"), "--disable", *silent, "--write-out", "%{json}\n", *words])
    return [json.loads(line) for line in said.splitlines()]


def check_counts(transfers: list[dict[str, Any]], record: Record) -> None:
    """Compare the record of a session with what curl counted: every byte of it."""
    assert record["down"] == sum(each["size_header"] + each["size_download"] for each in transfers)
    assert record["up"] == sum(each["size_request"] + each["size_upload"] for each in transfers)
    assert record["cause"] == "client_eof"


def test_download(nginx: Nginx, gateway: Gateway, tmp_path: Path) -> None:
    """A large file arrives as it was, and the record has each of its bytes."""
    copy = tmp_path / "copy"
    transfers = curl("--output", str(copy), f"http://127.0.0.1:{gateway.port('web')}/large")
    assert sha256(copy) == nginx.checksum
    copy.unlink()
    assert transfers[0]["size_download"] == DOWNLOAD
    check_counts(transfers, *records(gateway, "web"))


def test_upload(nginx: Nginx, gateway: Gateway, tmp_path: Path) -> None:
    """A large upload arrives as it was, and the record has each of its bytes."""
    source = tmp_path / "source"
    checksum = write_random(source, UPLOAD, 2)
    transfers = curl(
        *("--upload-file", str(source), "--output", os.devnull),
        f"http://127.0.0.1:{gateway.port('web')}/put/uploaded",
    )
    assert transfers[0]["http_code"] == 201
    assert sha256(nginx.www / "put" / "uploaded") == checksum
    source.unlink()
    check_counts(transfers, *records(gateway, "web"))


def test_keep_alive(nginx: Nginx, gateway: Gateway, tmp_path: Path) -> None:
    """Many requests of one connection are one session."""
    pages = f"http://127.0.0.1:{gateway.port('web')}/page?[1-{REQUESTS}]"
    transfers = curl("--output", str(tmp_path / "page#1"), pages)
    assert sum(each["num_connects"] for each in transfers) == 1
    assert len(transfers) == REQUESTS
    assert {each.read_bytes() for each in tmp_path.iterdir()} == {PAGE}
    check_counts(transfers, *records(gateway, "web"))


def test_connections_side_by_side(nginx: Nginx, gateway: Gateway, tmp_path: Path) -> None:
    """Requests over connections of their own are sessions of their own."""
    pages = f"http://127.0.0.1:{gateway.port('web')}/page?[1-{REQUESTS}]"
    curl("--parallel", "--header", "Connection: close", "--output", str(tmp_path / "page#1"), pages)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [PAGE] * REQUESTS
    records(gateway, "web", REQUESTS)


def test_ipv6(nginx: Nginx, gateway: Gateway, tmp_path: Path) -> None:
    """`curl -6` reaches an IPv4 endpoint through a listener of IPv6."""
    needs.ipv6()
    page = tmp_path / "page"
    transfers = curl("-6", "--output", str(page), f"http://[::1]:{gateway.port('web6')}/page")
    assert page.read_bytes() == PAGE
    (record,) = records(gateway, "web6")
    assert record["client"].startswith("[::1]:")
    check_counts(transfers, record)
