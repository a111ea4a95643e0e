"""The ruleset that a new installation begins with: it listens on the loopback interface only."""

from typing import Final

STARTER: Final = """\
# The ruleset of this host's gateway. After a change:
#
#     systemctl reload portway
#
# Every key: docs/ruleset.md of the project, or `portway schema`.

[gateway]
# workers = "auto"          # one per core
# drain_timeout = "30s"     # how long live sessions may go on when the gateway is stopped

# This one shows the form, and exposes nothing: clients of this host only.
[[rule]]
name = "example"
listen = "127.0.0.1:18080"  # ":443" is that port of every address, IPv4 and IPv6
to = "127.0.0.1:18081"      # a server of the intranet; a list, ["10.0.0.5:443", "10.0.0.6:443"], takes turns

# [[rule]]
# name = "dns"
# protocol = "tcp+udp"
# listen = ":53"
# to = "10.0.0.2:53"
# responses = 1
"""
