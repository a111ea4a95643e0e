"""The kernel's network configuration, asked and changed over rtnetlink."""

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from appliance.machine.netlink import Address, Answer, Kind, Link, Message, NameServers, dump, read_messages
from appliance.net.reactor import IN, Reactor

_LARGEST: Final = 1 << 16
_GROUPS: Final = 0x1 | 0x10 | 0x100 | 1 << 19
"""Links, IPv4 addresses, IPv6 addresses, options of router advertisements (linux/rtnetlink.h)."""


class Links:
    """What there is, as far as the kernel has told, and requests to change it."""

    def __init__(self) -> None:
        self._requests = _open(0)
        self._news = _open(_GROUPS)
        self._news.setblocking(False)
        self.links: dict[int, Link] = {}
        self.addresses: dict[tuple[int, str], Address] = {}

    def look(self) -> None:
        """Ask for all links and addresses. Raises OSError."""
        for kind in (Kind.GET_LINK, Kind.GET_ADDRESS):
            for message in self._ask(dump(kind)):
                self._note(message)

    def apply(self, message: bytes) -> None:
        """Have something changed; the kernel's refusal is an OSError."""
        for answer in self._ask(message):
            if isinstance(answer, Answer) and answer.error:
                raise OSError(answer.error, os.strerror(answer.error))

    def _ask(self, message: bytes) -> Iterable[Message]:
        self._requests.send(message)
        while True:
            for answer in read_messages(self._requests.recv(_LARGEST)):
                yield answer
                if isinstance(answer, Answer):
                    return

    def watch(self, reactor: Reactor, news: Callable[[Message], None]) -> None:
        """Have `news` called with what changes from here on."""

        def take(message: Message) -> None:
            self._note(message)
            news(message)

        reactor.watch(self._news.fileno(), IN, _News(self._news, take, partial(self._look_again, take)))

    def _look_again(self, take: Callable[[Message], None]) -> None:
        """Take what changed while there was no room for the news. Raises OSError."""
        found = [message for kind in (Kind.GET_LINK, Kind.GET_ADDRESS) for message in self._ask(dump(kind))]
        links = {message.index for message in found if isinstance(message, Link)}
        addresses = {(each.index, str(each.interface)) for each in found if isinstance(each, Address)}
        gone: list[Message] = [
            *(replace(self.addresses[key], is_gone=True) for key in self.addresses.keys() - addresses),
            *(replace(self.links[index], is_gone=True) for index in self.links.keys() - links),
        ]
        for message in (*gone, *found):
            take(message)

    def _note(self, message: Message) -> None:
        match message:
            case Link(index=index, is_gone=gone):
                if gone:
                    self.links.pop(index, None)
                else:
                    self.links[index] = message
            case Address(index=index, interface=interface, is_gone=gone):
                if gone:
                    self.addresses.pop((index, str(interface)), None)
                else:
                    self.addresses[index, str(interface)] = message
            case NameServers() | Answer():
                pass

    def of(self, index: int) -> list[Address]:
        """Give an interface's addresses, IPv4 first, in a stable order."""
        own = [address for (owner, _), address in self.addresses.items() if owner == index]
        return sorted(own, key=lambda each: (each.interface.version, int(each.interface.ip)))


def _open(groups: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    opened.bind((0, groups))
    return opened


class _News:
    """The kernel's announcements."""

    def __init__(
        self, source: socket.socket, take: Callable[[Message], None], look_again: Callable[[], None]
    ) -> None:
        self._source = source
        self._take = take
        self._look_again = look_again

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Hand on what the kernel says."""
        try:
            data = self._source.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: more news than room; what still waits is older than a look
            with suppress(OSError):
                while self._source.recv(_LARGEST):
                    pass
            self._look_again()
            return
        for message in read_messages(data):
            self._take(message)

    def on_fault(self) -> None:
        """Nothing ends."""
