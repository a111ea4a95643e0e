"""One of each message of a tunnel, with everything in it."""

from typing import Final

import msgspec

from appliance.wire import messages

CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"

HELLO: Final = messages.Hello(
    version=1,
    instance="00112233445566778899aabbccddeeff",
    generation=7,
    worker=0,
    workers=2,
    software="1.4.0",
)
WELCOME: Final = messages.Welcome(
    version=1,
    link="0123456789abcdef",
    secret="00112233445566778899aabbccddeeff" * 2,
    worker=1,
    workers=2,
    heartbeat=2.0,
    encryption="tls",
    ready=4,
    allow_to=["192.168.1.0/24:22"],
    software="1.4.0",
)
ATTACH: Final = messages.Attach(version=1, link="0123456789abcdef", number=3, proof="a5" * 32)
OPEN: Final = messages.Open(
    session="01KARPYX5V4T9Q2M7XKD000042",
    rule="office-ssh",
    protocol="tcp",
    to="192.168.1.10:22",
    client="203.0.113.9:51022",
    local="198.51.100.1:2222",
    connect_timeout=5.0,
    idle_timeout=3600.0,
    proxy_protocol="v2",
)

OF_AGENT: Final[tuple[messages.FromAgent, ...]] = (
    HELLO,
    messages.Ping(number=12),
    messages.Pong(number=12),
    messages.Renew(request="-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"),
    messages.Bye(reason="drain"),
)
OF_GATEWAY: Final[tuple[messages.FromGateway, ...]] = (
    WELCOME,
    messages.Refused(cause="stale", message="a newer one is there", retry=True),
    messages.Ping(number=1),
    messages.Pong(number=2),
    messages.Want(ready=8),
    messages.Renewed(certificate=CERTIFICATE, expires=1790000000.0),
    messages.Bye(reason="replaced"),
)
OF_DATA: Final[tuple[messages.Answer, ...]] = (
    messages.Opened(endpoint="192.168.1.10:22"),
    messages.Failed(cause="dial_refused"),
)
EACH: Final[tuple[msgspec.Struct, ...]] = (ATTACH, OPEN, *OF_AGENT, *OF_GATEWAY, *OF_DATA)

DECODERS: Final = (
    messages.FIRST,
    messages.FROM_AGENT,
    messages.FROM_GATEWAY,
    messages.OPEN,
    messages.ANSWER,
)
