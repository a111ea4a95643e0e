"""What operators write, right and nearly right: strategies shared by tests of the ruleset and its values."""

from hypothesis import strategies as st

ALPHABET = "0123456789abcfxABFX.:-[]%/_*ez \t\n\0é"


@st.composite
def nearly(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Give a text with up to two characters put in, taken out or changed."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(ALPHABET, max_size=1)) + text[at + draw(st.integers(0, 1)) :]
    return text


def ipv4() -> st.SearchStrategy[str]:
    """Give IPv4 addresses, some of which stand for something."""
    known = st.sampled_from(["0.0.0.0", "127.0.0.1", "255.255.255.255", "10.0.0.5"])
    return known | st.ip_addresses(v=4).map(str)


@st.composite
def ipv6(draw: st.DrawFn) -> str:
    """Give IPv6 addresses in every form: full, shortened anywhere, with IPv4 at the end, with a zone."""
    group = st.sampled_from(["0", "1", "ffff", "FE80", "fe8", "febf", "00a", "2001", "db8"])
    groups = draw(st.lists(group, min_size=0, max_size=8))
    if draw(st.booleans()):
        groups = [*groups[:6], draw(ipv4())]
    cut = draw(st.none() | st.integers(0, len(groups)))
    text = ":".join(groups) if cut is None else f"{':'.join(groups[:cut])}::{':'.join(groups[cut:])}"
    return text + draw(st.sampled_from(["", "", "", "%eth0", "%", "%br-lan.10", "%an interface"]))


def names() -> st.SearchStrategy[str]:
    """Give host names, a few of which only look like one."""
    label = st.text("abz019-_", min_size=1, max_size=8) | st.sampled_from(
        ["xn--mnchen-3ya", "x" * 63, "x" * 64, ""]
    )
    tail = st.sampled_from(["", "", "", ".", ".0x1f", ".7", ".com"])
    return st.builds(
        lambda labels, end: ".".join(labels) + end, st.lists(label, min_size=1, max_size=4), tail
    )


def ports() -> st.SearchStrategy[str]:
    """Give ports and ranges of them, with what is just outside."""
    number = st.sampled_from(
        ["0", "1", "80", "443", "9999", "10000", "65535", "65536", "99999", "08", "", "x"]
    )
    number |= st.integers(1, 65535).map(str)
    return number | st.builds("{}-{}".format, number, number)


def unix() -> st.SearchStrategy[str]:
    """Give unix sockets, near the length that the kernel takes too."""
    path = st.text("ab/. é\0\n", max_size=12) | st.integers(100, 110).map(lambda size: "/" + "x" * (size - 1))
    return path.map("unix:{}".format)


def admins() -> st.SearchStrategy[str]:
    """Give addresses of an admin socket, right and nearly right."""
    path = unix().map(lambda text: text.removeprefix("unix:"))
    whole = path | st.sampled_from(["@", "@portway", "/run/portway/admin.sock"])
    return whole | nearly(whole) | unix() | st.text(max_size=8)


def addresses() -> st.SearchStrategy[str]:
    """Give addresses of every kind, right and nearly right."""
    host = ipv4() | ipv6().map("[{}]".format) | names() | st.sampled_from(["", "localhost", "*"])
    whole = st.builds("{}:{}".format, host, ports()) | unix()
    return whole | nearly(whole) | st.text(max_size=20)


def allowed() -> st.SearchStrategy[str]:
    """Give what an agent may reach, of every kind, right and nearly right."""
    host = (
        ipv4() | ipv6().map("[{}]".format) | names() | st.sampled_from(["", "*", "[fe80::]", "[::ffff:0:0]"])
    )
    length = st.sampled_from(
        ["0", "8", "24", "32", "33", "64", "96", "128", "129", "08", "", "255.0.0.0", "-1"]
    )
    span = ports() | st.just("*")
    network = st.builds("{}/{}:{}".format, host, length, span)
    whole = network | st.builds("{}:{}".format, host, span) | unix()
    return whole | nearly(whole) | ipv6().map("{}/64:22".format) | ipv6().map("[{}/64]:22".format) | st.text()


def directories() -> st.SearchStrategy[str]:
    """Give absolute paths of directories, right and nearly right, near the longest too."""
    path = st.text("ab/. é\0\n", max_size=12) | st.integers(3835, 3845).map(
        lambda size: "/" + "x" * (size - 1)
    )
    return path | path.map("/{}".format) | st.text(max_size=8)


def durations() -> st.SearchStrategy[str]:
    """Give durations, right and nearly right."""
    count = st.sampled_from(["0", "1", "05", "365", "366", "99999999999", "100000000000", "1.5", "-1", ""])
    part = st.builds(
        "{}{}".format, count | st.integers(0, 10**6).map(str), st.sampled_from(["d", "h", "m", "s", "ms"])
    )
    whole = st.lists(part, min_size=1, max_size=3).map("".join)
    ordered = st.lists(st.sampled_from(["d", "h", "m", "s", "ms"]), unique=True).map(
        lambda units: "".join(f"7{unit}" for unit in ("d", "h", "m", "s", "ms") if unit in units)
    )
    return whole | ordered | nearly(whole) | st.text(max_size=8)


def sizes() -> st.SearchStrategy[str]:
    """Give sizes, right and nearly right, with what is just outside what a key takes."""
    count = st.sampled_from(
        ["0", "1", "04", "1023", "1024", "1099511627776", "9" * 14, "1.5", "0.25", "-1", ""]
    )
    units = st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB", "KB", "mb", "k", "TB", " MiB", "ib"])
    whole = st.builds("{}{}".format, count | st.integers(0, 10**13).map(str), units)
    return whole | nearly(whole) | st.text(max_size=8)
