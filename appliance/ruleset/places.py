"""Where in the text a document's keys and values stand. Imported only when there is something to point at.

tomllib keeps no places, so tomlkit parses the text once more, and a recorder notes on its way the index at
which each header, key and value begins.
"""

from contextlib import suppress
from dataclasses import dataclass, field

from tomlkit.items import AoT, Item, Key, Table
from tomlkit.parser import Parser

from appliance.problem import Place
from appliance.ruleset.finding import Path
from appliance.ruleset.source import Source


@dataclass(slots=True)
class _Spot:
    """Where one key and its value begin, as indices into the text, and what is below it."""

    key: int = 0
    value: int | None = None
    has_header: bool = False
    below: dict[str | int, "_Spot"] = field(default_factory=dict)

    def child(self, name: str | int, at: int) -> "_Spot":
        """Give what is below at `name`, new if it is not there yet."""
        return self.below.setdefault(name, _Spot(key=at))

    def last(self) -> "_Spot":
        """Give the table that a header's name stands for: of a list of tables, its last one."""
        index = len(self.below) - 1
        return self.below.get(index, self)


class _Recorder(Parser):
    """tomlkit's parser, noting where things begin.

    It leans on three inner methods, which are called in the order of the text. Should a release of tomlkit
    call them otherwise, places become coarser; tests/unit/ruleset/test_places.py notices.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.root = _Spot()
        self._within = [self.root]
        self._header: int | None = None
        self._named: tuple[list[str], int] | None = None
        self.repeated: tuple[int, int] | None = None
        """Where the first key or table that is given twice stands, both times."""

    def _parse_table(
        self, parent_name: Key | None = None, parent: Table | None = None
    ) -> tuple[Key, Table | AoT]:
        self._header = self._idx
        return super()._parse_table(parent_name, parent)

    def _parse_key(self) -> Key:
        begin = self._idx
        key = super()._parse_key()
        names = [part.key for part in key]
        if self._header is None:
            self._named = (names, begin)
        else:
            self._open(names, self._header)
            self._header = None
        return key

    def _open(self, names: list[str], at: int) -> None:
        spot = self.root
        for name in names[:-1]:
            spot = spot.child(name, at).last()
        spot = spot.child(names[-1], at)
        if self._src.startswith("[[", at):
            spot = spot.child(len(spot.below), at)
        self._note(spot, at)
        spot.has_header = True
        self._within = [spot]

    def _note(self, spot: _Spot, at: int) -> None:
        if (spot.value is not None or spot.has_header) and self.repeated is None:
            self.repeated = (spot.key, at)

    def _parse_value(self) -> Item:
        spot = self._within[-1]
        if self._named is None:
            spot = spot.child(len(spot.below), self._idx)
        else:
            names, begin = self._named
            for name in names:
                spot = spot.child(name, begin)
            self._note(spot, begin)
        self._named = None
        spot.value = self._idx
        self._within.append(spot)
        try:
            return super()._parse_value()
        finally:
            self._within.pop()


class Places:
    """The places of one document."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._recorder = _Recorder(source.text)
        # tomlkit has limits that tomllib has not (100 levels) and, as any parser, may have bugs. What was
        # recorded until then stands, and a coarse place is better than a traceback.
        with suppress(Exception):
            self._recorder.parse()

    def of(self, path: Path, *, at_key: bool = False) -> Place:
        """Give the place of a value (or its key), or of the nearest thing above that has one.

        What the document as a whole lacks would stand at its end.
        """
        if not path:
            return self._source.at(len(self._source.text))
        spot, is_whole = self._recorder.root, True
        for name in path:
            if name not in spot.below:
                is_whole = False
                break
            spot = spot.below[name]
        wants_key = at_key or not is_whole or spot.value is None
        return self._source.at(spot.key if wants_key or spot.value is None else spot.value)

    def repeated(self) -> tuple[Place, Place] | None:
        """Give both places of the first key or table that is given twice."""
        twice = self._recorder.repeated
        return None if twice is None else (self._source.at(twice[0]), self._source.at(twice[1]))
