"""Addresses, durations and sizes."""

import re
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.values import (
    MAX_SIZE,
    Address,
    AllowedTarget,
    ListenAddress,
    Misread,
    TargetAddress,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    uncovered,
)
from appliance.values.admin import DEFAULT_ADMIN, parse_admin
from appliance.values.directory import MAX_DIRECTORY, parse_directory
from tests.unit.ruleset import written

MS_OF_YEAR = 365 * 86_400_000


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8080", ListenAddress("0.0.0.0", 8080, 8080)),
        (":80", ListenAddress("", 80, 80)),
        ("[::]:80", ListenAddress("::", 80, 80)),
        ("[::1]:0", ListenAddress("::1", 0, 0)),
        ("[2001:DB8:0:0::1]:80", ListenAddress("2001:db8::1", 80, 80)),
        ("[fe80::1%eth0]:80", ListenAddress("fe80::1%eth0", 80, 80)),
        ("[::ffff:10.0.0.5]:80", ListenAddress("10.0.0.5", 80, 80)),
        ("0.0.0.0:16384-16483", ListenAddress("0.0.0.0", 16384, 16483)),
        (":80-80", ListenAddress("", 80, 80)),
        ("unix:/run/web.sock", ListenAddress(path="/run/web.sock")),
        ("unix:///run//web.sock", ListenAddress(path="/run/web.sock")),
        ("unix:/" + "x" * 106, ListenAddress(path="/" + "x" * 106)),
    ],
)
def test_a_listen_address_reads(text: str, address: ListenAddress) -> None:
    """Every notation of a listener's address gives its canonical value."""
    assert ListenAddress.parse(text) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.5:80", TargetAddress("10.0.0.5", 80, 80)),
        ("[::1]:80", TargetAddress("::1", 80, 80)),
        ("DB_1.Internal:5432", TargetAddress("db_1.internal", 5432, 5432)),
        ("db.internal.:5432", TargetAddress("db.internal.", 5432, 5432)),
        ("localhost:1-65535", TargetAddress("localhost", 1, 65535)),
        ("0x7f.example:80", TargetAddress("0x7f.example", 80, 80)),
        ("unix:/run/app.sock", TargetAddress(path="/run/app.sock")),
    ],
)
def test_a_target_address_reads(text: str, address: TargetAddress) -> None:
    """Every notation of an endpoint's address gives its canonical value."""
    assert TargetAddress.parse(text) == address


BOTH = (ListenAddress, TargetAddress)
LISTEN = (ListenAddress,)
TARGET = (TargetAddress,)


@pytest.mark.parametrize(
    ("kinds", "text", "what", "hint"),
    [
        (BOTH, "", "is no address", "write one, such as"),
        (BOTH, "10.0.0.5", "has no port", 'write "10.0.0.5:80"'),
        (BOTH, "10.0.0.5:", "has no port after its colon", "write the number"),
        (BOTH, "8080", "is a port without its colon", ':8080"'),
        (BOTH, "10.0.0.5:65536", '"65536" is no port number', "65535"),
        (BOTH, "10.0.0.5:http", '"http" is no port number', "65535"),
        (BOTH, "10.0.0.5:٣", '"٣" is no port number', "65535"),
        (BOTH, "10.0.0.5:080", 'port "080" begins with 0', "write 80"),
        (BOTH, "10.0.0.5:" + "9" * 5000, "is no port number", "65535"),
        (BOTH, "10.0.0.5:90-80", "runs backwards", "write 80-90"),
        (LISTEN, ":0-5", "port 0 in a range", "give it alone"),
        (TARGET, "10.0.0.5:0", '"0" is no port number', "ports go from 1"),
        (BOTH, " 10.0.0.5:80", "has spaces in it", 'write "10.0.0.5:80"'),
        (BOTH, "http://a.example/x", "is a URL", '"a.example:80"'),
        (BOTH, "https://me@a.example", "is a URL", '"a.example:443"'),
        (BOTH, "tcp://10.0.0.5:81", "is a URL", '"10.0.0.5:81"'),
        (BOTH, "tcp:///", "is a URL", "host and port only"),
        (BOTH, "/run/app.sock", "is a path", '"unix:/run/app.sock"'),
        (BOTH, "2001:db8::5", "too many colons", '"[2001:db8::5]:80"'),
        (BOTH, "::1:80", "too many colons", '"[::1]:80"'),
        (BOTH, "a:b:c", "too many colons", '"[::1]:80"'),
        (BOTH, "[::1", "does not close", '"[::1]:80"'),
        (BOTH, "[::1]", "has no port", '"[::1]:80"'),
        (BOTH, "[::1%]:80", "no valid IPv6 address", "2001:db8::5"),
        (BOTH, "[::g]:80", "no valid IPv6 address", "2001:db8::5"),
        (BOTH, "[10.0.0.5]:80", "what is not an IPv6 address", '"10.0.0.5:80"'),
        (BOTH, "[fe80::1]:80", "does not say on which interface", "%eth0"),
        (BOTH, "[2001:db8::1%eth0]:80", "only link-local addresses", '"[2001:db8::1]"'),
        (BOTH, "[fe80::1%a b]:80", "has spaces", "write"),
        (BOTH, "[fe80::1%" + "x" * 16 + "]:80", "no valid interface name", "15"),
        (BOTH, "unix:run/app.sock", "not an absolute path", "whole path"),
        (BOTH, "unix:/run/", "names a directory", "name the socket"),
        (BOTH, "unix:/a\0b", "has a NUL", "take it out"),
        (BOTH, "unix:/\udc80", "not UTF-8", "UTF-8"),
        (BOTH, "unix:/" + "x" * 107, "108 bytes long", "shorter"),
        (BOTH, "unix:/" + "é" * 54, "109 bytes long", "shorter"),
        (LISTEN, "*:80", "numeric address", '":80"'),
        (LISTEN, "LOCALHOST:80", "numeric address", '"127.0.0.1:80", and "[::1]:80"'),
        (LISTEN, "eth0:80", "numeric address", '":80" for all'),
        (BOTH, "10.0.0.256:80", "no valid IPv4 address", "goes up to 255"),
        (BOTH, "8080:80", "no valid IPv4 address", "an address stands before the colon"),
        (BOTH, "1.2.3.4.5:80", "no valid IPv4 address", "four numbers from 0 to 255"),
        (TARGET, ":80", "has no host", '"127.0.0.1:80"'),
        (TARGET, "0.0.0.0:80", "cannot be dialled", '"127.0.0.1:80"'),
        (TARGET, "[::]:80", "cannot be dialled", '"[::1]:80"'),
        (TARGET, "10.0.0:80", "no valid IPv4 address", "four numbers from 0 to 255"),
        (TARGET, "10.0.0.05:80", "no valid IPv4 address", "no leading zeros"),
        (TARGET, "0x7f000001:80", "no valid IPv4 address", "four numbers from 0 to 255"),
        (TARGET, "a..b:80", 'no valid host name: ""', "63"),
        (TARGET, "-a.b:80", 'no valid host name: "-a"', "hyphen"),
        (TARGET, "x" * 64 + ".b:80", "no valid host name", "63"),
        (TARGET, ".".join(["x" * 63] * 4) + ":80", "host name of 255 characters", "253"),
        (TARGET, "münchen.example:80", "outside ASCII", '"xn--mnchen-3ya.example"'),
        (TARGET, "faß.example:80", "outside ASCII", '"xn--fa-hia.example"'),
        (TARGET, "é" * 80 + ":80", "outside ASCII", "xn-- form"),
        (TARGET, "\ud800.example:80", "outside ASCII", "xn-- form"),
    ],
)
def test_a_wrong_address_is_explained(
    kinds: tuple[type[ListenAddress] | type[TargetAddress], ...], text: str, what: str, hint: str
) -> None:
    """Each mistake is named after the text as it was written, with what to write instead."""
    for kind in kinds:
        with pytest.raises(Misread) as caught:
            kind.parse(text)
        assert what in caught.value.what
        assert hint in (caught.value.hint or "")


@settings(deadline=None)
@given(written.addresses())
def test_canonical_text_reads_back(text: str) -> None:
    """str() of any address that reads is text for the same address."""
    for kind in BOTH:
        try:
            address = kind.parse(text)
        except Misread:
            continue
        assert kind.parse(str(address)) == address
        assert str(kind.parse(str(address))) == str(address)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_explained(text: str) -> None:
    """No text, however odd, raises anything but Misread, and what it says is fit for a terminal."""
    said: list[str | None] = []
    for parse in (
        *(ListenAddress.parse, TargetAddress.parse, AllowedTarget.parse, parse_duration, parse_size),
        *(parse_admin, partial(parse_directory, example="/var/lib/portway")),
    ):
        try:
            parse(text)
        except Misread as misread:
            said += [misread.what, misread.hint]
    assert all(words and words.isprintable() for words in said)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("10.0.0.5", 80, 80), "10.0.0.5:80"),
        (Address("::1", 80, 80), "[::1]:80"),
        (Address("", 80, 80), ":80"),
        (Address("0.0.0.0", 16384, 16483), "0.0.0.0:16384-16483"),
        (Address(path="/path"), "unix:/path"),
        (ListenAddress("fe80::1%eth0", 1, 2), "[fe80::1%eth0]:1-2"),
        (TargetAddress("db", 5432, 5432), "db:5432"),
    ],
)
def test_canonical_text(address: Address, text: str) -> None:
    """str() is what an operator would write, also for the subclasses."""
    assert str(address) == text


def test_an_address_is_a_value() -> None:
    """Addresses are equal and hash by content: rules can be compared, and addresses be keys."""
    address = TargetAddress.parse("10.0.0.5:80")
    assert len({address, TargetAddress("10.0.0.5", 80, 80)}) == 1


@pytest.mark.parametrize(
    ("text", "is_name", "is_unix", "count"),
    [
        ("10.0.0.5:80", False, False, 1),
        ("[::1]:80-89", False, False, 10),
        ("db:80", True, False, 1),
        ("unix:/a", False, True, 1),
    ],
)
def test_what_an_address_is(text: str, is_name: bool, is_unix: bool, count: int) -> None:
    """Only a host name needs resolving, only a path is a unix socket, and a range has both its ends."""
    address = TargetAddress.parse(text)
    assert (address.is_name, address.is_unix, address.port_count) == (is_name, is_unix, count)


def test_a_range_maps_by_offset() -> None:
    """at() gives the single port at an offset of a range, and the address itself where there is one."""
    span = TargetAddress.parse("10.0.0.5:8000-8009")
    assert [str(span.at(offset)) for offset in (0, 9)] == ["10.0.0.5:8000", "10.0.0.5:8009"]
    for outside in (-1, 10):
        with pytest.raises(IndexError):
            span.at(outside)
    for text in ("10.0.0.5:80", "unix:/a"):
        one = TargetAddress.parse(text)
        assert one.at(0) is one
        assert one.at(7) is one


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("@", "@"),
        ("/run/portway/admin.sock", "/run/portway/admin.sock"),
        ("//run//a", "/run/a"),
        ("/" + "x" * 106, "/" + "x" * 106),
    ],
)
def test_an_admin_address_reads(text: str, address: str) -> None:
    """A path, with single slashes, or @."""
    assert parse_admin(text) == address


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("", "not an absolute path", '"@"'),
        ("admin.sock", "not an absolute path", DEFAULT_ADMIN),
        ("127.0.0.1:9000", "not an absolute path", "unix socket"),
        ("@portway", "abstract", '"@" alone'),
        ("unix:/run/a", "more than a path", 'write "/run/a"'),
        ("unix:", "more than a path", DEFAULT_ADMIN),
        ("/run/", "directory", DEFAULT_ADMIN),
        ("/a\0b", "NUL", "take it out"),
        ("/" + "x" * 107, "108 bytes long: the kernel takes 107", DEFAULT_ADMIN),
        ("/" + "é" * 54, "109 bytes long", DEFAULT_ADMIN),
        ("/\udcff", "not UTF-8", "UTF-8"),
    ],
)
def test_a_wrong_admin_address_is_explained(text: str, what: str, hint: str) -> None:
    """The message quotes what was written, and the hint says what to write."""
    with pytest.raises(Misread) as misread:
        parse_admin(text)
    assert misread.value.what.startswith('"')
    assert what in misread.value.what
    assert hint in str(misread.value.hint)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("250ms", 0.25),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("365d", 31_536_000.0),
        ("1d1ms", 86400.001),
    ],
)
def test_a_duration_reads(text: str, seconds: float) -> None:
    """A duration is seconds, and formats back to what was written."""
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("", "is no duration", '"5s"'),
        ("5", "is no duration", 'write "5s"'),
        ("1h5", "is no duration", 'write "1h5s"'),
        ("5 sec", "is no duration", 'write "5s"'),
        ("5 Minutes", "is no duration", 'write "5m"'),
        ("2 hours", "is no duration", 'write "2h"'),
        ("1.5s", "is no duration", 'write "1500ms"'),
        ("1.5h", "is no duration", "whole numbers"),
        ("-5s", "is no duration", "whole numbers"),
        ("5s1h", "is no duration", "whole numbers"),
        ("9" * 5000 + "s", "is no duration", "whole numbers"),
        ("0s", "is no time at all", "1ms"),
        ("365d1ms", "is too long", "365d"),
    ],
)
def test_a_wrong_duration_is_explained(text: str, what: str, hint: str) -> None:
    """Each mistake is named, with what to write instead."""
    with pytest.raises(Misread) as caught:
        parse_duration(text)
    assert what in caught.value.what
    assert hint in (caught.value.hint or "")


@settings(deadline=None)
@given(st.integers(1, MS_OF_YEAR))
def test_every_millisecond_formats_and_reads_back(milliseconds: int) -> None:
    """format_duration and parse_duration are inverse for every duration there is."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


def test_no_time_formats() -> None:
    """A duration of nothing, as a deadline may have left, has a text too."""
    assert format_duration(0.0) == "0s"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("4095B", 4095),
        ("4KiB", 4096),
        ("512kB", 512_000),
        ("4MiB", 4_194_304),
        ("20MB", 20_000_000),
        ("1GB", 1_000_000_000),
        ("1GiB", 1_073_741_824),
        ("1024GiB", 1_099_511_627_776),
    ],
)
def test_a_size_reads(text: str, size: int) -> None:
    """A size is bytes, of units of 1000 or 1024, and formats back to what was written."""
    assert parse_size(text) == size
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("", "is no size", '"4MiB" or "512kB"'),
        ("4096", "is no size", 'say the unit: write "4096B"'),
        ("4mb", "is no size", 'did you mean "4MB" or "4MiB"?'),
        ("4KB", "is no size", 'did you mean "4kB" or "4KiB"?'),
        ("4k", "is no size", 'did you mean "4kB" or "4KiB"?'),
        ("4G", "is no size", 'did you mean "4GB" or "4GiB"?'),
        ("4mib", "is no size", 'write "4MiB"'),
        ("4b", "is no size", 'write "4B"'),
        ("4 MB", "is no size", 'write "4MB"'),
        ("04MiB", "is no size", 'write "4MiB"'),
        ("1.5MiB", "is no size", 'write "1536KiB"'),
        ("1.5MB", "is no size", 'write "1500kB"'),
        ("0.5m", "is no size", 'did you mean "500kB" or "512KiB"?'),
        ("1.5B", "is no size", "whole number"),
        ("0.0001kB", "is no size", "whole number"),
        ("2000GiB ", "is no size", "whole number"),
        ("9999999999999", "is no size", "whole number"),
        ("0mb", "is no size", "whole number"),
        ("4MB/s", "is no size", "whole number"),
        ("-4MB", "is no size", "whole number"),
        ("4TB", "is no size", "whole number"),
        ("\u0664MB", "is no size", "whole number"),
        ("\u0664", "is no size", "whole number"),
        ("9" * 5000 + "B", "is no size", "whole number"),
        ("0MiB", "is no room at all", "1B"),
        ("1025GiB", "is too large", "1024GiB"),
        ("1099511627777B", "is too large", "1024GiB"),
    ],
)
def test_a_wrong_size_is_explained(text: str, what: str, hint: str) -> None:
    """Each mistake is named, with what to write instead."""
    with pytest.raises(Misread) as caught:
        parse_size(text)
    assert what in caught.value.what
    assert hint in (caught.value.hint or "")


@settings(deadline=None)
@given(written.sizes())
def test_a_size_that_a_hint_names_is_one(text: str) -> None:
    """What is to be written instead of a size can be read, each of several."""
    try:
        parse_size(text)
    except Misread as misread:
        for mended in re.findall('"(.+?)"', misread.hint or ""):
            assert parse_size(mended)


@settings(deadline=None)
@given(st.integers(1, MAX_SIZE) | st.integers(1, 1000).map((1 << 20).__mul__))
def test_every_size_formats_and_reads_back(size: int) -> None:
    """format_size and parse_size are inverse for every size there is."""
    assert parse_size(format_size(size)) == size


def test_no_size_formats() -> None:
    """A buffer of nothing, as a kernel may report one, has a text too."""
    assert format_size(0) == "0B"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.168.1.0/24:22", "192.168.1.0/24:22"),
        ("0.0.0.0/0:22", "0.0.0.0/0:22"),
        ("[::]/0:*", "[::]/0:*"),
        ("10.0.0.0/8:*", "10.0.0.0/8:*"),
        ("10.0.0.0/8:1-65535", "10.0.0.0/8:*"),
        ("[2001:DB8:0::]/64:1-1024", "[2001:db8::]/64:1-1024"),
        ("[fe80::]/10:22", "[fe80::]/10:22"),
        ("192.168.1.10:22", "192.168.1.10:22"),
        ("192.168.1.10/32:22-22", "192.168.1.10:22"),
        ("[::1]:22", "[::1]:22"),
        ("[::1]/128:22", "[::1]:22"),
        ("0.0.0.0/32:22", "0.0.0.0/32:22"),
        ("[::]/128:22", "[::]/128:22"),
        ("[::ffff:10.0.0.0]/104:22", "10.0.0.0/8:22"),
        ("[::ffff:0:0]/96:*", "0.0.0.0/0:*"),
        ("[::ffff:10.0.0.5]:22", "10.0.0.5:22"),
        ("DB.internal:5432", "db.internal:5432"),
        ("db:*", "db:*"),
        ("unix:/run//app.sock", "unix:/run/app.sock"),
    ],
)
def test_what_is_allowed_reads(text: str, canonical: str) -> None:
    """Every notation of what an agent may reach reads, and has one canonical text that reads as the same."""
    allowed = AllowedTarget.parse(text)
    assert str(allowed) == canonical
    assert AllowedTarget.parse(canonical) == allowed


@settings(deadline=None)
@given(written.allowed())
def test_canonical_text_of_what_is_allowed_reads_back(text: str) -> None:
    """str() of anything that reads is text for the same value; a refusal can be shown, with its hint."""
    try:
        allowed = AllowedTarget.parse(text)
    except Misread as misread:
        said = [misread.what, misread.hint]
        assert all(words and words.isprintable() for words in said)
        return
    assert AllowedTarget.parse(str(allowed)) == allowed


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        (
            "192.168.1.5/24:22",
            "bits set beyond its /24",
            '"192.168.1.0/24:22" for the network, or "192.168.1.5:22"',
        ),
        ("[2001:db8::5]/64:*", "bits set beyond its /64", '"[2001:db8::]/64:*" for the network'),
        ("[::ffff:10.0.0.5]/104:22", "bits set beyond its /104", '"10.0.0.0/8:22" for the network'),
        ("[::ffff:10.0.0.0]/90:22", "bits set beyond its /90", '"[::ffc0:0:0]/90:22"'),
        ("192.168.1.0/255.255.255.0:22", "no prefix length", 'write "192.168.1.0/24:22"'),
        ("192.168.1.7/0.0.0.255:22", "no prefix length", 'write "192.168.1.0/24:22"'),
        ("10.0.0.0/33:22", '"33" is no prefix length', "from 0 to 32"),
        ("10.0.0.0/08:22", '"08" is no prefix length', 'write "10.0.0.0/8:22"'),
        ("10.0.0.0/:22", '"" is no prefix length', "from 0 to 32"),
        ("[::]/129:22", '"129" is no prefix length', "from 0 to 128"),
        ("10.0.0.0/8", "has no port", '"10.0.0.0/8:*"'),
        ("10.0.0.5", "has no port", '"10.0.0.5:80"'),
        ("10.0.0.0/8:", "has no port after its colon", "the number"),
        ("10.0.0.0/8:0", '"0" is no port number', "ports go from 1"),
        ("10.0.0.0/8:9-1", "runs backwards", "write 1-9"),
        ("2001:db8::/64:22", "no brackets around the address alone", 'write "[2001:db8::]/64:22"'),
        ("2001:db8::/64", "no brackets around the address alone", 'write "[2001:db8::]/64:*"'),
        ("[2001:db8::/64]:22", "no brackets around the address alone", 'write "[2001:db8::]/64:22"'),
        ("[10.0.0.0]/8:22", "what is not an IPv6 address", 'write "10.0.0.0/8:22"'),
        ("[::g]/64:22", "no valid IPv6 address", "[2001:db8::]/64:22"),
        ("[fe80::1%eth0]:22", "names an interface", "leave %eth0 out"),
        ("[fe80::%eth0]/64:22", "names an interface", "leave %eth0 out"),
        ("0.0.0.0:22", "cannot be dialled", 'write "0.0.0.0/0:22"'),
        ("[::]:22", "cannot be dialled", 'write "[::]/0:22"'),
        ("[::ffff:0:0]:22", "cannot be dialled", 'write "0.0.0.0/0:22"'),
        (":22", "has no host", '"0.0.0.0/0:22" and "[::]/0:22"'),
        ("*:*", "has no host", '"0.0.0.0/0:*" and "[::]/0:*"'),
        ("db/24:22", "a prefix length after a name", 'write "db:22"'),
        ("10/8:22", "no valid IPv4 address", "an address"),
        ("10.0.0.0 /8:22", "has spaces", 'write "10.0.0.0/8:22"'),
        ("/run/app.sock", "is a path", '"unix:/run/app.sock"'),
        ("http://a.example/", "is a URL", '"a.example:80"'),
        ("22", "a port without its colon", '"192.168.1.0/24:22"'),
        ("", "is no address", '"192.168.1.0/24:22"'),
        ("unix:run", "not an absolute path", "whole path"),
    ],
)
def test_what_is_wrongly_allowed_is_explained(text: str, what: str, hint: str) -> None:
    """Each mistake is named after the text as it was written, with what to write instead."""
    with pytest.raises(Misread) as caught:
        AllowedTarget.parse(text)
    assert caught.value.what.startswith('"')
    assert what in caught.value.what
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("allowed", "target", "is_allowed"),
    [
        ("192.168.1.0/24:22", "192.168.1.255:22", True),
        ("192.168.1.0/24:22", "192.168.2.0:22", False),
        ("192.168.1.0/24:22", "192.168.1.1:23", False),
        ("192.168.1.0/24:22", "192.168.1.1:22-23", False),
        ("192.168.1.0/24:*", "192.168.1.1:22-23", True),
        ("0.0.0.0/0:*", "[2001:db8::1]:22", False),
        ("[::]/0:*", "10.0.0.5:22", False),
        ("[fe80::]/10:22", "[fe80::1%eth0]:22", True),
        ("0.0.0.0/0:*", "db:22", False),
        ("db:22", "db:22", True),
        ("db:22", "DB:22", True),
        ("db:22", "db.:22", False),
        ("db:22", "10.0.0.5:22", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "db:22", False),
        ("0.0.0.0/0:*", "unix:/a", False),
    ],
)
def test_what_is_allowed(allowed: str, target: str, is_allowed: bool) -> None:
    """A target is allowed if all its ports are, in the network, or at just that name or path."""
    assert AllowedTarget.parse(allowed).allows(TargetAddress.parse(target)) is is_allowed


@pytest.mark.parametrize(
    ("allowed", "host", "is_allowed"),
    [
        ("[::]/0:*", "::ffff:127.0.0.1", False),
        ("127.0.0.0/8:*", "::ffff:127.0.0.1", True),
        ("0.0.0.0/0:*", "0.0.0.0", False),
        ("[::]/0:*", "::", False),
        ("0.0.0.0/0:*", "::ffff:0.0.0.0", False),
    ],
)
def test_what_a_resolver_may_give_opens_no_other_family(allowed: str, host: str, is_allowed: bool) -> None:
    """A mapped address is the IPv4 one that is dialled; what stands for the host itself is in no network."""
    assert AllowedTarget.parse(allowed).allows(TargetAddress(host, 22, 22)) is is_allowed


spans = st.tuples(st.integers(1, 9), st.integers(0, 4)).map(lambda span: f"{span[0]}-{span[0] + span[1]}")
hosts = st.sampled_from(["10.0.0.1", "10.0.0.2", "db", "web"])
around = st.sampled_from(["10.0.0.0/30", "10.0.0.1", "10.0.0.2", "db", "web", "10.1.0.0/16"])


@settings(deadline=None)
@given(
    st.builds("{}:{}".format, hosts, spans), st.lists(st.builds("{}:{}".format, around, spans), max_size=5)
)
def test_the_first_port_that_nothing_allows(target_text: str, allowed_texts: list[str]) -> None:
    """It is the first of the target's ports without a part for it; a name may lead into any network."""
    target = TargetAddress.parse(target_text)
    allowed = [AllowedTarget.parse(text) for text in allowed_texts]
    ports = range(target.first_port, target.last_port + 1)
    parts = [part for part in allowed if target.is_name and part.network is not None]
    open_to_names = {port for part in parts for port in range(part.first_port, part.last_port + 1)}
    outside = [
        port
        for port in ports
        if port not in open_to_names
        and not any(part.allows(TargetAddress(target.host, port, port)) for part in allowed)
    ]
    assert uncovered(target, allowed) == next(iter(outside), None)


def test_a_unix_socket_is_allowed_by_its_path_alone() -> None:
    """It has no port to tell: 0 stands for a socket that nothing allows."""
    allowed = [AllowedTarget.parse(text) for text in ("0.0.0.0/0:*", "unix:/a")]
    assert uncovered(TargetAddress.parse("unix:/a"), allowed) is None
    assert uncovered(TargetAddress.parse("unix:/b"), allowed) == 0


@pytest.mark.parametrize(
    ("text", "path"),
    [("/a", "/a"), ("//var//lib/portway//", "/var/lib/portway"), ("/" + "x" * 3839, "/" + "x" * 3839)],
)
def test_a_directory_reads(text: str, path: str) -> None:
    """An absolute path, with single slashes and none at its end, of as many bytes as it may have."""
    assert parse_directory(text, example="/b") == path
    assert len(path.encode()) <= MAX_DIRECTORY


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("", "not an absolute path", '"/b"'),
        ("portway", "not an absolute path", '"/b"'),
        ("~/portway", "not an absolute path", '"/b"'),
        ("/a\0", "NUL", "take it out"),
        ("/", "the root of all directories", '"/b"'),
        ("//", "the root of all directories", '"/b"'),
        ("/\udcff", "not UTF-8", "UTF-8"),
        ("/" + "é" * 1920, "3841 bytes long: 3840 leave room", "shorter"),
    ],
)
def test_a_wrong_directory_is_explained(text: str, what: str, hint: str) -> None:
    """The message quotes what was written, and the hint says what to write."""
    with pytest.raises(Misread) as caught:
        parse_directory(text, example="/b")
    assert caught.value.what.startswith('"')
    assert what in caught.value.what
    assert hint in (caught.value.hint or "")
