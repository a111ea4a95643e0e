"""The VM's network on a host of the test's own: `python -m tests.real.machine_network [network.toml]`.

Its records go to stdout. /run must be a folder of its own, and the host's name, too.
"""

import sys
from pathlib import Path

from appliance.machine.network import Network
from appliance.machine.network_file import read_network
from appliance.machine.network_model import NetworkFile
from appliance.net.reactor import Reactor
from appliance.observe.log import make_log
from appliance.supervisor.journal import Journal


def fault(error: BaseException) -> None:
    """End at the first fault."""
    raise SystemExit(repr(error))


def main() -> None:
    """Set the network up, and look after it."""
    network = read_network(Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else b"", "network.toml")
    assert isinstance(network, NetworkFile), network
    reactor = Reactor(fault)
    log = make_log(1, tty=False)
    journal = Journal(reactor, log)
    Network(reactor, log, network, journal.wrote).start()
    reactor.run()


if __name__ == "__main__":
    main()
