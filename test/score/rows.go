package score

// Row is one line of the scorecard: what goes wrong, what is promised, and which
// tests show it.
type Row struct {
	ID      string
	Fault   string
	Promise string
	Runs    []Run
	// Wants names what the row's promise asks for beyond what Runs show.
	Wants string
	// Env are settings of the runs' environment that make them larger than in CI.
	Env []string
}

// Run is one go test command.
type Run struct {
	Pkg   string
	Test  string // -run, or -bench if Times is set
	Times string // -benchtime
}

// Rows is the whole card, in order. A row without runs is one that nothing shows
// yet, and is counted as that.
var Rows = []Row{
	{ID: "1", Fault: "kill -9 of a service", Promise: "answering again p50 <= 10 ms, p99 <= 50 ms, by the resident agent", Runs: []Run{{"./test/bench", "ServiceRepair", "100x"}}, Wants: "the same under load on 20 nodes"},
	{ID: "2", Fault: "kill -9 of a node process", Promise: "back p50 <= 300 ms, max <= 1 s, by a peer's agent", Runs: []Run{{"./test/bench", "NodeRepair", "20x"}}},
	{ID: "3", Fault: "kill -9 of exec, and of exec and node at once", Promise: "services untouched and adopted, never two copies; exec back <= 2 s", Runs: []Run{{"./test/bench", "ExecKilled", "5x"}, {"./test/script", "TestStories/exec_killed", ""}, {"./test/keep", "TestKills|TestLastWords", ""}}},
	{ID: "4", Fault: "a host is gone without a FIN", Promise: "unreachable at all of 10 / 30 / 100 nodes <= 3 / 4 / 6 s", Runs: []Run{{"./test/sim", "TestHostVanishes", ""}}},
	{ID: "5", Fault: "SIGSTOP of a node process, timers late at once", Promise: "services untouched; healthy <= 1 s after SIGCONT; restarted once if stopped for long", Runs: []Run{{"./exec", "Frozen|Watchdogs|LateTimer", ""}, {"./test/ring", "TestStoppedNodeProcess", ""}, {"./test/keep", "TestAFrozenHostIsNotHung", ""}}, Wants: "every length from 1 to 60 s"},
	{ID: "6", Fault: "a partition in halves", Promise: "nothing restarted across it; one view <= 15 s after it ends", Runs: []Run{{"./test/sim", "TestPartition", ""}, {"./test/netlab", "TestCutInHalves", ""}}},
	{ID: "7", Fault: "19/1 and overlapping partitions, one-way cuts", Promise: "the lone node acts on nobody; no healthy node accused", Runs: []Run{{"./test/sim", "TestOddCuts|TestOneWitnessIsNone", ""}}},
	{ID: "8", Fault: "packet loss of 5 to 30 %", Promise: "false deaths 0 / 0 / 0 / <= 5 an hour", Runs: []Run{{"./test/sim", "TestLossKillsNobody", ""}}, Wants: "a whole hour of each"},
	{ID: "9", Fault: "delay, duplicates, reordering, corruption", Promise: "0 false deaths, 0 crashes, corrupted all refused and counted", Runs: []Run{{"./gossip", "Flipped", ""}}, Wants: "delay, duplicates and reordering in a fleet"},
	{ID: "10", Fault: "a link that flaps", Promise: "0 restarts, <= 12 reports a peer", Runs: []Run{{"./test/sim", "TestLinksFlap", ""}}},
	{ID: "11", Fault: "a fifth of the nodes stalls in a cycle", Promise: "no healthy node called dead by healthy observers", Runs: []Run{{"./test/ring", "TestAFifthStalls", ""}}, Env: []string{"P2PNODE_ROUNDS=5"}, Wants: "a CPU quota of 2 %"},
	{ID: "12", Fault: "the whole cluster killed and started", Promise: "one view <= 15 s, no acknowledged report lost", Runs: []Run{{"./test/sim", "TestWholeFleetLosesPower", ""}}, Env: []string{"P2PNODE_SIM_FLEET=50"}},
	{ID: "13", Fault: "random kills of 30 % every 20 s", Promise: "every service up >= 99 % of its host's time, 0 violations", Runs: []Run{{"./test/chaos", "TestChaos|TestStoryOnThreeOthers", ""}}},
	{ID: "14", Fault: "services that exit at once, always", Promise: "<= 20 starts in 10 min each; a neighbour's death noticed <= 1.2x", Runs: []Run{{"./exec", "CrashLoop|AnyQueue|TestFiftyCrashing", ""}, {"./test/netlab", "TestCrashLoopKeepsItsBudget", ""}, {"./test/bench", "Beside/crashing", "1x"}}},
	{ID: "15", Fault: "20 agents recover one service at once", Promise: "exactly one restart", Runs: []Run{{"./exec", "RecoverNames|AnyQueue|TestTwentyCallers", ""}, {"./agent", "TestTwentyAgentsAtOnce", ""}}, Wants: "20 agents of real hosts"},
	{ID: "16", Fault: "the carrier is killed at each step", Promise: "mission done or failed, no double effect, none lost", Runs: []Run{{"./agent", "CarriersDie|AfterTheAck|Lapse", ""}, {"./test/sim", "TestCarrierDies", ""}, {"./test/netlab", "TestDeparture|TestCarrierDies", ""}}},
	{ID: "17", Fault: "agent flood from one manager", Promise: "refused at quota, memory and detection hold", Runs: []Run{{"./agent", "TestFlood", ""}}, Wants: "memory and detection measured"},
	{ID: "18", Fault: "forged, altered, expired, replayed messages", Promise: "100 % refused, each counted and named", Runs: []Run{{"./overlay/records", "Take|Refuse|Limits|Stranger", ""}, {"./agent", "Forged|Replayed|Refusals", ""}, {"./store", "Forged", ""}}},
	{ID: "19", Fault: "every protocol x every role x no certificate", Promise: "the deny table, cell by cell", Runs: []Run{{"./overlay", "ProtocolTable", ""}, {"./exec/door", "DenyTable", ""}}},
	{ID: "20", Fault: "an outsider floods the ports", Promise: "members' detection <= 1.2x, memory and descriptors bounded", Runs: []Run{{"./exec/door", "HalfOpen|Crowd|Strangers|TestAFloodAtTheDoor|TestAKilledDoor", ""}, {"./overlay", "Stranger|BadManners", ""}}, Wants: "detection beside a flood"},
	{ID: "21", Fault: "whoever holds the gossip key says that everybody is dead", Promise: "0 restarts, the view of live members unchanged", Runs: []Run{{"./gossip", "ForgedDeath", ""}}},
	{ID: "22", Fault: "revoked nodes, expired certificates, no manager for 100 days", Promise: "refused <= 10 s; recovery goes on, privilege does not", Runs: []Run{{"./overlay/papers", "Expiry", ""}, {"./overlay", "TestRevokedIsRefusedEverywhere|TestTheFirstManagerIsRevoked|TestDemoted|TestCertificatesAreRenewed|TestRenewalWithoutTheRoot", ""}, {"./test/sim", "TestEveryCertificateEnds|TestTheDemotedReadsNothingNew", ""}}, Wants: "100 days of a fleet"},
	{ID: "23", Fault: "clocks jump by a day", Promise: "0 restarts, 0 lost reports", Runs: []Run{{"./overlay/records", "TimeOfReceiver", ""}}, Wants: "a fleet with wrong clocks"},
	{ID: "24", Fault: "disk full, damaged or vanished store", Promise: "supervision unaffected; nothing acknowledged unsynced; refetched from peers", Runs: []Run{{"./store", "Damaged|Dead|Flipped|Failing|Hanging|Full|Vanished|Killed|Environment|Locked", ""}}, Wants: "refetching by real processes is measured in row 32"},
	{ID: "25", Fault: "a crash between any two writes", Promise: "every acknowledged record is there", Runs: []Run{{"./store", "Killed|Reopening|PowerCut", ""}}},
	{ID: "26", Fault: "few descriptors, pids, memory", Promise: "degrades with a report, no crash loop", Runs: []Run{{"./test/keep", "TestFewDescriptors", ""}, {"./test/chaos", "TestScarce", ""}}},
	{ID: "27", Fault: "pids are given out again", Promise: "0 signals to a wrong process", Runs: []Run{{"./exec", "RecycledNumber", ""}}, Env: []string{"P2PNODE_CYCLES=10000"}},
	{ID: "28", Fault: "children that outlive their parent", Promise: "0 leaked processes", Runs: []Run{{"./exec", "Leftovers|Stubborn|TestAForkBombIsBounded|TestADaemonisingProgramIsNotDoubled|TestNothingGoesOnBesideTheNextLife", ""}, {"./test/netlab", "TestAHiddenChildIsFound", ""}}},
	{ID: "29", Fault: "log floods, huge lines, secrets", Promise: "bounded excerpt <= 50 ms, 0 secrets leaked; a neighbour's restart <= 2x", Runs: []Run{{"./exec/logs", ".", ""}, {"./exec", "TestAFlood", ""}, {"./test/bench", "Beside/flood", "1x"}}},
	{ID: "30", Fault: "version n-1 beside n", Promise: "0 violations", Runs: []Run{{"./test/ring", "TwoVersions", ""}}, Wants: "a release; the earlier revision is a commit"},
	{ID: "31", Fault: "malformed frames, records, config, command lines", Promise: "0 panics; a clear error", Runs: []Run{{"./test/script", "TestStories/bad_input", ""}}, Wants: "long fuzzing: make fuzz"},
	{ID: "32", Fault: "a late manager, 100k reports, the origin's store deleted", Promise: "a useful view <= 2 s, the story readable", Runs: []Run{{"./node", "Late", ""}, {"./test/netlab", "TestDoneMeans", ""}, {"./store", "Large", "1x"}, {"./test/bench", "LateManager", "1x"}}, Wants: "100 nodes"},
	{ID: "33", Fault: "24 simulated hours of row 13's mix", Promise: "0 violations, nothing grows", Runs: []Run{{"./test/sim", "TestSoak", ""}}, Env: []string{"P2PNODE_SIM_MINUTES=20", "P2PNODE_SIM_SEEDS=2"}, Wants: "24 h, 50 seeds"},
	{ID: "34", Fault: "maintenance, observe, `recover: off`, a debugger, on every path", Promise: "0 acts, each refusal named", Runs: []Run{{"./test/netlab", "TestHandsOff|TestADebuggerIsLeftAlone", ""}, {"./test/script", "TestStories/human_intent", ""}}},
	{ID: "35", Fault: "liars, twins, cloned disks", Promise: "no stranger touches a service; nobody recovers a duplicate", Runs: []Run{{"./overlay", "ForeignCluster|Lobby|Founds|OneKey", ""}, {"./test/ring", "ClonedDisk", ""}}},
	{ID: "36", Fault: "a chain whose ends cannot reach each other; the next hop cut during the hop", Promise: "arrives by the second choice < 1 s; trail = path", Runs: []Run{{"./test/netlab", "Chain|SecondChoice|OtherWire", ""}}},

	{ID: "C", Fault: "SIGSTOP of a service, stop_grace 0", Promise: "answering again <= 20 ms", Runs: []Run{{"./test/bench", "Frozen", "5x"}}},
	{ID: "D", Fault: "deadlock of a service, http check at its defaults", Promise: "answering again p50 <= 4 s", Runs: []Run{{"./test/bench", "Deadlock", "10x"}}},
	{ID: "J", Fault: "five nodes on loopback, the last one starts", Promise: "all five see five <= 1 s", Runs: []Run{{"./test/bench", "Join", "5x"}}},
	{ID: "I", Fault: "nothing happens", Promise: "a host costs <= 40 MiB PSS, <= 0.8 % of a core, <= 5 kB/s each way", Runs: []Run{{"./test/bench", "Idle", "1x"}}},
	{ID: "B", Fault: "the binary", Promise: "<= 30 MiB, no ReflectMethod reachable", Runs: []Run{{"./test/arch", "Binary|Reflect", ""}}},
	{ID: "P", Fault: "bugs planted on purpose", Promise: "each caught by simulation and by real hosts", Runs: []Run{{"./test/planted", "TestEveryPlantedBugIsCaught", ""}}},
}

// Headline are the rows that the README shows.
var Headline = []string{"1", "2", "3", "4", "6", "C", "D", "J", "I", "34", "36"}
