"""Text that is not the value it should be."""


class Misread(ValueError):  # noqa: N818 - it says what happened to the text; nothing in the program failed
    """Text that is not the value it should be.

    `what` is a clause that starts with the text in quotes; `hint` is what to write instead.
    """

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
