"""The systemd unit, with the reason for each line that is not plain (systemd.service(5), systemd.exec(5))."""

from typing import Final

from appliance.host.layout import ACCOUNT, ADMIN, LAUNCHER, RULES

MADE: Final = "# Made by `portway install`"
"""How the unit begins, and a unit that somebody else made does not."""

UNIT_TEXT: Final = f"""\
{MADE}, which replaces it. What is to differ goes into a drop-in: systemctl edit portway
#
# A new ruleset:   systemctl reload portway
# A new version:   NEW-PORTWAY install --now
# The one before:  /opt/portway/previous/portway install --now

[Unit]
Description=Portway, the gateway for servers of an intranet
Wants=network-online.target
After=network-online.target nss-lookup.target
# An address that DHCP has yet to bring is worth a minute of tries; a wrong ruleset is worth no more.
StartLimitIntervalSec=120
StartLimitBurst=30

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=30
ExecStartPre={LAUNCHER} check {RULES}
ExecStart={LAUNCHER} run {RULES}
# Problems of the ruleset are a reload that failed, and change nothing.
ExecReload={LAUNCHER} reload {RULES}
# Where `portway status` and `portway install` ask, so it stays; a ruleset that names an address itself
# ([gateway] admin) goes first.
Environment=PORTWAY_ADMIN={ADMIN}
Restart=always
RestartSec=2
# The first process ends its workers in order. How long sessions may go on is the ruleset's drain_timeout, and
# it asks for that time when it begins to stop (EXTEND_TIMEOUT_USEC of sd_notify(3)).
KillMode=mixed
TimeoutStopSec=30
# Two for each session; the kernel's own limit is fs.nr_open.
LimitNOFILE=1048576
# A record for each session, however many: the gateway itself drops and counts what its reader does not take.
LogRateLimitIntervalSec=0

User={ACCOUNT}
Group={ACCOUNT}
# Unix sockets that rules listen on are for the members of the group.
UMask=0007
RuntimeDirectory=portway
RuntimeDirectoryMode=0750
StateDirectory=portway
StateDirectoryMode=0700
ConfigurationDirectory=portway
ConfigurationDirectoryMode=0750

# Ports below 1024, whichever a later ruleset may name; it allows nothing else. To let `receive_buffer` exceed
# net.core.rmem_max, add CAP_NET_ADMIN to both in a drop-in.
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes

# It reads its folder and its ruleset and writes to /run/portway and /var/lib/portway. So rules listen on unix
# sockets in /run/portway, and reach those of others anywhere but in /home, /root, /run/user and /tmp.
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateMounts=yes
PrivateIPC=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
KeyringMode=private
RemoveIPC=yes
# AF_NETLINK: getaddrinfo(3) asks which families this host has. AF_UNIX: rules, journal, systemd.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
# Not PrivateNetwork=, IPAddressDeny=, PrivateUsers=: a gateway is on the host's network, for any peer, and a
# capability in a user namespace of its own binds no port of the host. Not ProcSubset=pid: it reads /proc/sys.

[Install]
WantedBy=multi-user.target
"""
