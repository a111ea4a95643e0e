"""Addresses, durations and sizes, in the units people write.

Every parser here takes text and gives a value, or raises `Misread`, which says what is wrong and what to
write instead. The canonical text of a value reads back as the same value.
"""

from appliance.values.address import MAX_PORT, Address, ListenAddress, TargetAddress
from appliance.values.allowed import AllowedTarget, uncovered
from appliance.values.duration import MAX_DURATION, format_duration, parse_duration
from appliance.values.misread import Misread
from appliance.values.proxy import Proxy
from appliance.values.size import MAX_SIZE, format_size, parse_size
from appliance.values.unix_path import MAX_UNIX_PATH

__all__ = [
    "MAX_DURATION",
    "MAX_PORT",
    "MAX_SIZE",
    "MAX_UNIX_PATH",
    "Address",
    "AllowedTarget",
    "ListenAddress",
    "Misread",
    "Proxy",
    "TargetAddress",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
    "uncovered",
]
