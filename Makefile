# p2pnode: `make demo` shows it, `make test` proves it, `make help` lists the rest.
# Nothing here installs anything outside this folder.

GO      ?= go
BIN     := bin/p2pnode
TOOL    := $(GO) tool -modfile=test/tools/go.mod
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export CGO_ENABLED ?= 0
# A test binary with the race detector needs cgo; only that target turns it on.

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## the static binary, bin/p2pnode
	@mkdir -p bin
	$(GO) build -buildvcs=true -trimpath -ldflags='-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/p2pnode

.PHONY: demo
demo: build ## five hosts on this machine, things die and come back; < 60 s, exit 0 only if all did
	./$(BIN) demo

# Fleets are tested one package at a time: real hosts must not fight each other
# for two cores. The rest runs side by side, under the race detector.
FLEETS := ./test/sim ./test/script ./test/inits ./test/netlab ./test/planted ./test/demo ./test/ring ./test/keep ./test/chaos
UNITS  := $(filter-out $(patsubst ./%,p2pnode/%,$(FLEETS)),$(shell $(GO) list ./... 2>/dev/null))

.PHONY: test
test: build ## every test: units with the race detector, simulation, scripts, network namespaces, containers, planted bugs, architecture
	@rm -f bin/skips; \
	export P2PNODE_BIN=$(CURDIR)/$(BIN) P2PNODE_SKIPS=$(CURDIR)/bin/skips; \
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $(UNITS); rc=$$?; \
	CGO_ENABLED=1 $(GO) test -p 1 -timeout 20m $(FLEETS) || rc=1; \
	if [ -s bin/skips ]; then echo "SKIPPED $$(wc -l < bin/skips) tests for want of something on this machine:"; sed 's/^/  /' bin/skips; else echo "skipped: 0 tests"; fi; \
	exit $$rc

BENCH := CGO_ENABLED=0 P2PNODE_BIN=$(CURDIR)/$(BIN) $(GO) test -run '^$$' -timeout 60m

.PHONY: scorecard
scorecard: build ## every row of docs/SCORECARD.md anew, and the README's table; ROWS=1,2,36 for some (20 min)
	P2PNODE_OLD=$(EARLIER) P2PNODE_BIN=$(CURDIR)/$(BIN) $(GO) run ./test/score/card -only '$(ROWS)'

.PHONY: bench
bench: bench-service bench-node bench-hang bench-exec bench-join bench-idle bench-store bench-late ## every bench, one after the other

.PHONY: bench-service
bench-service: build ## service kill -9 until it answers, 100 times, fallbacks at 60 s and at defaults, beside a bare fork+exec
	$(BENCH) -bench ServiceRepair -benchtime 100x ./test/bench

.PHONY: bench-node
bench-node: build ## node process kill -9 until it answers, by a peer's agent, 20 times, both fallbacks
	$(BENCH) -bench NodeRepair -benchtime 20x ./test/bench

.PHONY: bench-hang
bench-hang: build ## SIGSTOP and deadlock of a service until it answers
	$(BENCH) -bench Frozen -benchtime 5x ./test/bench
	$(BENCH) -bench Deadlock -benchtime 10x ./test/bench

.PHONY: bench-exec
bench-exec: build ## exec kill -9 under ten services until all are adopted
	$(BENCH) -bench ExecKilled -benchtime 5x ./test/bench

.PHONY: bench-mttr
bench-mttr: build ## ours beside runit, s6, daemontools, supervisor and monit, 20 faults each or more; the README's table (40 min); ONLY=REGEXP, P2PNODE_ROUNDS=N
	$(BENCH) -bench 'MTTR/$(or $(ONLY),.)' -benchtime 1x ./test/bench
	$(GO) run ./test/score/mttr

.PHONY: bench-crowd
bench-crowd: build ## kill -9 of a service alone, then beside 2,000 processes of others, 20 faults each (2 min)
	$(BENCH) -bench 'MTTR/^p2pnode/^kill_-9(_beside.*)?$$' -benchtime 1x ./test/bench

.PHONY: bench-flood
bench-flood: build ## kill -9 of a service alone, then while another one prints 100 MB/s, 20 faults each (1 min)
	$(BENCH) -bench 'MTTR/^p2pnode(,_another_.*)?$$/^kill_-9(_beside_a_flood_.*)?$$' -benchtime 1x ./test/bench

.PHONY: bench-beside
bench-beside: build ## kill -9 of services alone, then beside 50 that exit at once, and beside 100 MB/s of logs, 25 faults each (2 min)
	$(BENCH) -bench Beside -benchtime 1x ./test/bench

.PHONY: bench-join
bench-join: build ## five nodes on loopback: all see five after the last start
	$(BENCH) -bench Join -benchtime 5x ./test/bench

.PHONY: bench-idle
bench-idle: build ## what an idle host costs, by role
	$(BENCH) -bench Idle -benchtime 1x ./test/bench

.PHONY: chain
chain: build ## the chain A-B-C-D in network namespaces: trail = path, second choice, departure host killed (root)
	P2PNODE_BIN=$(CURDIR)/$(BIN) $(GO) test -v -run 'Chain|SecondChoice|Departure|DoneMeans' ./test/netlab

.PHONY: seeds
seeds: ## claims, handoffs and carriers that die, under thousands of seeds (P2PNODE_SEED=N replays one)
	P2PNODE_SEEDS=25 $(GO) test -v -timeout 40m -run 'Carrier|Twenty|StaleRanks|ClaimsConverge' ./agent

.PHONY: missions
missions: build ## a ring of real hosts: node processes killed 20 times, launcher dead, carrier killed, two at once, exec too, stopped, hung
	P2PNODE_BIN=$(CURDIR)/$(BIN) P2PNODE_ROUNDS=20 $(GO) test -v -timeout 40m ./test/ring

.PHONY: upgrades
upgrades: build ## the binary replaced 100 times under services that work and die
	P2PNODE_BIN=$(CURDIR)/$(BIN) P2PNODE_ROUNDS=100 $(GO) test -v -count=1 -timeout 40m -run UpgradesUnderLoad ./test/keep

.PHONY: kills
kills: build ## exec, door and node process killed 1000 times at all moments and about as often in a row, 200 last words; SEED=N throws the same dice
	P2PNODE_BIN=$(CURDIR)/$(BIN) P2PNODE_ROUNDS=1000 $(GO) test -v -count=1 -timeout 60m -run '^TestKills$$' ./test/keep
	P2PNODE_BIN=$(CURDIR)/$(BIN) P2PNODE_ROUNDS=200 $(GO) test -v -count=1 -timeout 60m -run LastWords ./test/keep

.PHONY: absence
absence: build ## exec and node process dead for 10 min while a service prints 200 kB a second
	P2PNODE_BIN=$(CURDIR)/$(BIN) P2PNODE_ABSENCE=10m $(GO) test -v -count=1 -timeout 20m -run NobodyIsThere ./test/keep

CHAOS := P2PNODE_BIN=$(CURDIR)/$(BIN) $(GO) test -v -count=1

# What `skew` runs beside this tree: the last release, or, before the first one, a
# commit some way back.
EARLIER = $(or $(OLD),$(shell git describe --tags --abbrev=0 2>/dev/null),$(shell git rev-parse --short HEAD~25 2>/dev/null))

.PHONY: skew
skew: build ## an earlier version beside this one, each repairing the other, then brought up to date; OLD=REVISION
	P2PNODE_OLD=$(EARLIER) P2PNODE_BIN=$(CURDIR)/$(BIN) $(GO) test -v -count=1 -timeout 20m -run TwoVersions ./test/ring

.PHONY: chaos
chaos: build ## five containers, everything killed at random for 2 min, judged from outside (Docker, root); SEED=N plays a run again
	$(CHAOS) -timeout 20m ./test/chaos

.PHONY: soak
soak: build ## the same for DURATION (1h) with SEED
	DURATION=$(or $(DURATION),1h) $(CHAOS) -timeout 0 -run '^TestChaos$$' ./test/chaos

.PHONY: spread
spread: ## a hundred whole nodes in a bubble hold the same reports by anti-entropy alone; prints what it costs (some minutes)
	P2PNODE_SIM_NODES=100 $(GO) test -v -timeout 40m -run ManyNodesConverge ./test/sim

.PHONY: bench-store
bench-store: ## a store with 100,000 reports: first view of a late manager, all of it, memory, status, lists
	$(GO) test -v -count=1 -timeout 10m -run '^$$' -bench Large -benchtime 1x ./store

.PHONY: bench-late
bench-late: build ## real processes: a host joins a cluster with 100,000 reports; then bits of its store are flipped (3 min)
	$(BENCH) -bench LateManager -benchtime 1x ./test/bench

.PHONY: size
size: ## binary size and reachable ReflectMethods
	$(GO) test -v -run 'Binary|Reflect' ./test/arch

.PHONY: exposure
exposure: build ## what systemd-analyze calls the exposure of the unit that `service install` writes, line by line
	@dir=$$(mktemp -d) && trap 'rm -r "$$dir"' EXIT && ./$(BIN) service install --print >"$$dir/p2pnode.service" && \
	systemd-analyze security --offline=true --no-pager "$$dir/p2pnode.service"

.PHONY: check
check: ## vet, formatting, staticcheck, go fix
	$(GO) vet ./...
	@out=$$($(TOOL) gofumpt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); if [ -n "$$out" ]; then echo "not gofumpt-clean:"; echo "$$out"; exit 1; fi
	$(TOOL) staticcheck ./...
	@out=$$($(GO) fix -diff ./... 2>&1 | grep -v '^#' || true); if [ -n "$$out" ]; then echo "go fix would change:"; echo "$$out"; exit 1; fi

.PHONY: fmt
fmt: ## gofumpt over all files that are ours
	$(TOOL) gofumpt -w $$(git ls-files '*.go' | grep -v '\.pb\.go$$')

.PHONY: schema
schema: build ## deploy/p2pnode.schema.json anew, after a change to the keys of p2pnode.yaml
	./$(BIN) config schema > deploy/p2pnode.schema.json

.PHONY: generate
generate: ## protobuf code anew (wants protoc and protoc-gen-go 1.36.12 on PATH)
	$(GO) generate ./...

.PHONY: fuzz
fuzz: ## every fuzz target for 20 s each
	test/fuzz.sh 20s

.PHONY: clean
clean: ## what the other targets made
	rm -rf bin
