package main

import "strings"

// unitText is the systemd unit; deploy/p2pnode.service is the same for the default
// places, which a test sees to.
const unitText = `# systemd unit, as p2pnode service install writes it. By hand: the binary to
# /usr/local/bin/p2pnode, this file to /etc/systemd/system/, a configuration to
# /etc/p2pnode.yaml (p2pnode config init), then:
#
#     systemctl daemon-reload && systemctl enable --now p2pnode
[Unit]
Description=p2pnode: keeps this host's processes alive, and its fleet's
# What is mounted over the network is there before services start, and until they have
# ended: nothing else says that of their folders.
After=network-online.target remote-fs.target
Wants=network-online.target
# A supervisor that is not started again is the worst outcome: no limit.
StartLimitIntervalSec=0

[Service]
# Ready when what was running is adopted; the rest is being started then.
Type=notify
ExecStart=@BIN@ --config @CONFIG@@DATA@ --supervised yes
# The file is read again; then the installed binary takes over, if it is another one.
ExecReload=@BIN@@DATA@ reload
ExecReload=@BIN@@DATA@ upgrade
# Fed by the loop that decides: one that is stuck is ended and started again, and
# the services do not notice.
WatchdogSec=30
# exec stops its children itself, in order. When exec alone is killed its services,
# the door and the node process must live on: the next exec adopts them.
KillMode=process
# Exit 0 was meant: p2pnode shutdown. 75, another p2pnode took over, is no failure:
# no unit is failed over a daemon that lives.
Restart=on-failure
SuccessExitStatus=75
RestartSec=100ms
# Longer than shutdown_timeout (8 s): that one ends in order, this one does not. exec
# asks for more (EXTEND_TIMEOUT_USEC) where shutdown_timeout says so.
TimeoutStopSec=15
# One service that runs out of memory must not take the host's others with it.
OOMPolicy=continue
# A cgroup for each service, below this unit's own.
Delegate=yes
StateDirectory=p2pnode
StateDirectoryMode=0700
LimitNOFILE=65536
TasksMax=infinity

[Install]
WantedBy=multi-user.target
`

// The places that the unit in deploy/ names.
const (
	unitBinary = "/usr/local/bin/p2pnode"
	unitConfig = "/etc/p2pnode.yaml"
	unitPath   = "/etc/systemd/system/p2pnode.service"
)

// unit is the unit for a binary, a configuration and, unless it is "", a data
// folder.
func unit(binary, config, data string) string {
	if data != "" {
		data = " --data " + unitWord(data)
	}
	return strings.NewReplacer("@BIN@", unitWord(binary), "@CONFIG@", unitWord(config), "@DATA@", data).Replace(unitText)
}

// unitWord is s as one word of a command in a unit.
func unitWord(s string) string {
	s = strings.NewReplacer("%", "%%", "$", "$$").Replace(s)
	if !strings.ContainsAny(s, " \t\"'\\;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
