"""Where keys and values stand: every way in which TOML lets them be written."""

import pytest

from appliance.ruleset.finding import Path
from appliance.ruleset.places import Places
from appliance.ruleset.source import Source

TEXT = """\
# comment with key = 1
top = 1
"quoted key" = "a"
dotted . key = [ "a", # one
  'b',
\t"c" ]
'multi' = \"""
 listen = 1
\"""
inline = { a = 1, b = { c = [1, 2] } }

  [gateway] # header
workers = 4
sub.deep = 2026-01-02 03:04:05

[ 'rule' . "x" ]
y = true

[[list]]
name = "a"
[list.below]
z = 1.5
[[list.inner]]
i = 0x10
[[list.inner]]
i = +1

[[list]]
name = "b" ; end
"""


def spot(path: Path, *, at_key: bool = False, text: str = TEXT) -> tuple[int, str]:
    """Give the line of a path's place, and the text that begins there."""
    place = Places(Source("f", text)).of(path, at_key=at_key)
    return place.line, place.excerpt[place.column - 1 :][:6]


GOOD = TEXT.replace(" ; end", "")


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        (("top",), (2, "1"), (2, "top = ")),
        (("quoted key",), (3, '"a"'), (3, '"quote')),
        (("dotted", "key"), (4, '[ "a",'), (4, "dotted")),
        (("dotted", "key", 0), (4, '"a", #'), (4, '"a", #')),
        (("dotted", "key", 1), (5, "'b',"), (5, "'b',")),
        (("dotted", "key", 2), (6, '"c" ]'), (6, '"c" ]')),
        (("multi",), (7, '"""'), (7, "'multi")),
        (("inline", "a"), (10, "1, b ="), (10, "a = 1,")),
        (("inline", "b", "c", 1), (10, "2] } }"), (10, "2] } }")),
        (("gateway",), (12, "[gatew"), (12, "[gatew")),
        (("gateway", "workers"), (13, "4"), (13, "worker")),
        (("gateway", "sub", "deep"), (14, "2026-0"), (14, "sub.de")),
        (("rule", "x"), (16, "[ 'rul"), (16, "[ 'rul")),
        (("rule", "x", "y"), (17, "true"), (17, "y = tr")),
        (("list",), (19, "[[list"), (19, "[[list")),
        (("list", 0), (19, "[[list"), (19, "[[list")),
        (("list", 0, "name"), (20, '"a"'), (20, "name =")),
        (("list", 0, "below", "z"), (22, "1.5"), (22, "z = 1.")),
        (("list", 0, "inner", 1), (25, "[[list"), (25, "[[list")),
        (("list", 0, "inner", 1, "i"), (26, "+1"), (26, "i = +1")),
        (("list", 1), (28, "[[list"), (28, "[[list")),
        (("list", 1, "name"), (29, '"b"'), (29, "name =")),
    ],
)
def test_every_key_and_value_has_its_place(path: Path, value: tuple[int, str], key: tuple[int, str]) -> None:
    """Keys, values and headers are found in every kind of table and list, and below dotted keys."""
    assert spot(path, text=GOOD) == value
    assert spot(path, at_key=True, text=GOOD) == key


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("gateway", "missing"), 12),
        (("list", 1, "missing", 3), 28),
        (("list", 7), 19),
        (("inline", "b", "nothing"), 10),
        (("nothing", "at", "all"), 1),
    ],
)
def test_what_is_missing_has_the_place_of_what_is_around_it(path: Path, line: int) -> None:
    """A key that is not there is shown where its table begins."""
    assert spot(path, text=GOOD)[0] == line


def test_what_the_document_lacks_is_at_its_end() -> None:
    """The document as a whole stands for its end, where something would be added."""
    assert spot((), text="a = 1\n") == (2, "")


def test_places_survive_what_tomlkit_does_not() -> None:
    """Where tomlkit stops, what it has passed keeps its place, and the rest has a coarser one."""
    text = f"[a]\nx = 1\ny = {'[' * 150}{']' * 150}\nz = 1\n"
    assert spot(("a", "x"), text=text) == (2, "1")
    assert spot(("a", "z"), text=text)[0] == 1
    assert spot(("list", 1, "name")) == (29, '"b" ; ')


def test_line_ends_do_not_move_places() -> None:
    """CRLF gives the same lines and columns as LF."""
    for path in (("multi",), ("dotted", "key", 2), ("list", 1, "name")):
        assert spot(path, text=GOOD.replace("\n", "\r\n")) == spot(path, text=GOOD)


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a = 1\nb = 2\na = 3\nb = 4", 1, 3),
        ("[a]\nx = 1\n[b]\nx = 1\n[a]", 1, 5),
        ("[[a]]\nx = 1\n[[a]]\nx = 1\n  x = 2", 4, 5),
        ("a = { x = 1 }\n[a]", 1, 2),
    ],
)
def test_what_is_given_twice_has_both_places(text: str, first: int, second: int) -> None:
    """The first key or table that is given twice is told, and not the same key of another table."""
    repeated = Places(Source("f", text)).repeated()
    assert repeated is not None
    assert (repeated[0].line, repeated[1].line) == (first, second)


def test_nothing_is_given_twice_in_a_good_document() -> None:
    """Headers of lists, tables below them and dotted keys are no repetition."""
    assert Places(Source("f", GOOD)).repeated() is None
