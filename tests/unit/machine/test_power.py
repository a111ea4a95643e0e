"""The power button, out of the events of an input device."""

import struct

import pytest

from appliance.machine.power import is_power_pressed


def event(kind: int, code: int, value: int) -> bytes:
    """One struct input_event."""
    return struct.pack("@llHHi", 1, 2, kind, code, value)


@pytest.mark.parametrize(
    ("data", "pressed"),
    [
        (event(1, 116, 1), True),
        (event(0, 0, 0) + event(1, 116, 1) + event(0, 0, 0), True),
        (event(1, 356, 1), True),
        (event(1, 116, 0), False),
        (event(1, 30, 1), False),
        (event(4, 116, 1), False),
        (event(1, 116, 1)[:-1], False),
        (b"", False),
    ],
)
def test_the_button_goes_down(data: bytes, pressed: bool) -> None:
    """Power keys count when they go down: not when they come up, and no other keys."""
    assert is_power_pressed(data) is pressed
