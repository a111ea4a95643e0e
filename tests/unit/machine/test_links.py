"""What the kernel tells of its network, when there is more than room for it."""

import errno
import os
from ipaddress import IPv4Interface
from typing import Any

import pytest

from appliance.machine import links as module
from appliance.machine.links import Links
from appliance.machine.netlink import Address, Link, Message
from appliance.net.reactor import IN


class Source:
    """A socket that has lost news, and still holds some that are old."""

    def __init__(self) -> None:
        self.answers: list[bytes] = [b"lost", b"old"]

    def recv(self, _size: int) -> bytes:
        """Give what is next."""
        if not self.answers:
            raise BlockingIOError
        if (answer := self.answers.pop(0)) == b"lost":
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return answer


def test_lost_news() -> None:
    """What still waits is dropped, being older, and the kernel is asked."""
    source: Any = Source()
    looked: list[None] = []
    taken: list[Message] = []
    news = module._News(source, taken.append, lambda: looked.append(None))
    news.on_event(IN)
    assert (len(looked), taken, source.answers) == (1, [], [])
    news.on_event(IN)
    assert len(looked) == 1


def test_a_look_tells_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interfaces and addresses that are not there any more are taken as gone, the others as they are."""
    made = Links.__new__(Links)
    one, two = (
        Link(index, f"eth{index}", "", is_up=True, has_carrier=True, is_loopback=False) for index in (1, 2)
    )
    old, new = (Address(1, IPv4Interface(f"192.0.2.{host}/24")) for host in (1, 2))
    made.links = {1: one, 2: two}
    made.addresses = {(1, str(old.interface)): old}
    answers: list[list[Message]] = [[one], [new]]
    monkeypatch.setattr(made, "_ask", lambda _message: answers.pop(0))
    taken: list[Message] = []

    def take(message: Message) -> None:
        made._note(message)
        taken.append(message)

    made._look_again(take)
    assert made.links == {1: one}
    assert made.addresses == {(1, str(new.interface)): new}
    assert [getattr(message, "is_gone", None) for message in taken] == [True, True, False, False]
