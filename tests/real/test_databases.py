"""PostgreSQL and Redis, with the benchmarks they come with."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, rule, ruleset
from tests.real.programs import (
    ORDERLY,
    RESET,
    Address,
    answers,
    find,
    folder_of,
    free_address,
    plain_user,
    records,
    run,
    running,
    succeeds,
)

CLIENTS = 8


@pytest.fixture(scope="module")
def postgres() -> Iterator[Address]:
    """Run PostgreSQL on an empty cluster of its own; it refuses to run as root."""
    server, initdb = find("postgres"), find("initdb")
    user = plain_user("postgres", "nobody")
    with folder_of(user) as folder:
        data = folder / "data"
        create = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        run(create, user=user, cwd=folder)
        host, port = free_address()
        settings = {
            "listen_addresses": host,
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": 2 * CLIENTS,
        }
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        is_ready = [find("pg_isready"), "-q", "-h", host, "-p", str(port)]

        command = [server, "-D", str(data), *words]
        with running(command, lambda: succeeds(is_ready), folder, user=user, stop=signal.SIGINT):
            yield host, port


@pytest.mark.timeout(300)
def test_pgbench(postgres: Address) -> None:
    """The benchmark runs every transaction, in sessions that last and in sessions of one transaction each."""
    pgbench = find("pgbench")
    with Gateway.start(ruleset(rule("db", "{}:{}".format(*postgres)))) as gateway:
        where = ["-h", "127.0.0.1", "-p", str(gateway.port("db")), "-U", "postgres", "postgres"]
        run([pgbench, "-i", "-s", "2", "-q", *where])
        lasting = [pgbench, "-n", "-c", str(CLIENTS), "-j", "2", "-t", "150", *where]
        check_pgbench(run(lasting).decode(), CLIENTS * 150)
        # Each run opens one session more, to ask the server about its tables.
        before = len(gateway.sessions(CLIENTS + 2))
        assert before == CLIENTS + 2
        short = [pgbench, "-n", "-C", "-c", str(CLIENTS), "-j", "2", "-t", "20", "-S", *where]
        check_pgbench(run(short).decode(), CLIENTS * 20)
        # pgbench says goodbye; the server may close before it has read that, which is a reset.
        those = records(gateway, "db", before + CLIENTS * 20 + 1, ORDERLY | RESET)
    assert max(each["up"] for each in those) > 1 << 20, "the tables are filled by COPY"


def check_pgbench(said: str, count: int) -> None:
    """Check that pgbench ran all transactions and none failed."""
    assert f"number of transactions actually processed: {count}/{count}" in said, said
    assert "number of failed transactions: 0 (0.000%)" in said, said


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Run Redis, in memory."""
    host, port = free_address()
    folder = tmp_path_factory.mktemp("redis")
    words = ["--bind", host, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with running([find("redis-server"), *words], lambda: answers((host, port)), folder):
        yield host, port


@pytest.fixture
def cache(redis: Address) -> Iterator[Gateway]:
    """Give a gateway before Redis."""
    with Gateway.start(ruleset(rule("cache", "{}:{}".format(*redis)))) as gateway:
        yield gateway


@pytest.mark.parametrize(("requests", "pipeline", "bytes_each"), [(10_000, 1, 3), (2_000, 16, 4096)])
def test_redis_benchmark(cache: Gateway, requests: int, pipeline: int, bytes_each: int) -> None:
    """redis-benchmark gets its replies, one at a time and pipelined."""
    said = run(
        [
            *(find("redis-benchmark"), "-h", "127.0.0.1", "-p", str(cache.port("cache")), "--csv"),
            *("-n", str(requests), "-c", "20", "-t", "ping_mbulk,set,get,lpush,lrange_100"),
            *("-P", str(pipeline), "-d", str(bytes_each)),
        ]
    ).decode()
    tests = [line.split(",")[0].strip('"') for line in said.splitlines()[1:]]
    # The list that LRANGE reads is filled by a test of its own.
    assert [test.split()[0] for test in tests] == ["PING_MBULK", "SET", "GET", "LPUSH", "LPUSH", "LRANGE_100"]
    assert "error" not in said.lower(), said
    # 20 for each test, and one that asks for the server's settings.
    those = cache.sessions(6 * 20 + 1)
    records(cache, "cache", len(those), ORDERLY | RESET)
    replies = requests * bytes_each * 100
    assert sum(each["down"] for each in those) > replies, "LRANGE alone is that much"


def test_redis_get_and_set(cache: Gateway, tmp_path: Path) -> None:
    """A value of some megabytes comes back from Redis as it went there."""
    command = [find("redis-cli"), "-h", "127.0.0.1", "-p", str(cache.port("cache"))]
    value = random.Random(4).randbytes(5 << 20)
    assert run([*command, "-x", "SET", "key"], stdin=value).strip() == b"OK"
    assert run([*command, "--raw", "GET", "key"])[: len(value)] == value
    assert run([*command, "STRLEN", "key"]).strip() == str(len(value)).encode()
    first, second, third = records(cache, "cache", 3)
    assert first["up"] > len(value) > first["down"]
    assert second["down"] > len(value) > second["up"]
    assert third["up"] + third["down"] < 1000
