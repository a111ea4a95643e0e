"""The text of a ruleset file, and places in it."""

from bisect import bisect_right
from functools import cached_property

from appliance.problem import Place


class Source:
    """A file's text without its byte order mark, and the name that messages give it."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._lines: dict[int, str] = {}

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        while found := self.text.find("\n", starts[-1]) + 1:
            starts.append(found)
        return starts

    def at(self, index: int) -> Place:
        """Give the place of the character at `index`; one past the last is the end."""
        index = min(max(index, 0), len(self.text))
        line = bisect_right(self._starts, index)
        return self.place(line, index - self._starts[line - 1] + 1)

    def place(self, line: int, column: int) -> Place:
        """Give the place at a line and column, both from 1, drawn into the text where it lies outside."""
        line = min(max(line, 1), len(self._starts))
        excerpt = self._line(line)
        return Place(self.file, line, min(max(column, 1), len(excerpt) + 1), excerpt)

    def _line(self, line: int) -> str:
        # Problems of one line share its text: a list of 10,000 wrong addresses may stand in one line.
        if line not in self._lines:
            end = self._starts[line] - 1 if line < len(self._starts) else len(self.text)
            self._lines[line] = self.text[self._starts[line - 1] : end].removesuffix("\r")
        return self._lines[line]
