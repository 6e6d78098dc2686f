# make demo and make test do all of their own set-up. What they keep lies in
# .cutout, apart from what you use.

export CUTOUT_HOME ?= $(CURDIR)/.cutout
export CGO_ENABLED ?= 0
GO      ?= go
BIN     := $(CURDIR)/bin

GOBUILD := $(GO) build -trimpath -ldflags '-s -w'
TOOL    := $(GO) tool -modfile=tools/go.mod

# What the tests call besides Go.
TEST_PROGRAMS := qemu-system-x86_64 e2fsck curl openssl python3 git gcc setpriv dbus-daemon gnome-keyring-daemon
INTEROP_PROGRAMS := curl openssl wget git nginx ip nsenter node npm python3 python3-requests python3-httpx python3-h2 tinyproxy microsocks unshare
LONG_PROGRAMS := $(TEST_PROGRAMS) $(INTEROP_PROGRAMS) iperf3 sshd ssh-keygen

.PHONY: all build setup demo test unit vm-test lint vuln bench flood memscan attack attack-ways mutate interop fuzz test-kvm test-long cross clean

all: build

build:
	$(GOBUILD) -o $(BIN)/ ./cmd/cutout ./cmd/cutout-agent

setup: build
	$(BIN)/cutout setup

demo:
	tools/prepare.sh qemu-system-x86_64
	@$(MAKE) --no-print-directory setup
	$(GO) run -trimpath ./examples/demo $(BIN)/cutout

test:
	tools/prepare.sh $(TEST_PROGRAMS) $(INTEROP_PROGRAMS)
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory unit attack interop fuzz vm-test

# The tests of each package, with the race detector; without it those that
# measure memory, and those that it makes ten times slower for nothing: of
# much data, of one goroutine's arithmetic, or of programs that are started
# again and again.
UNRACED := TestBodyMemory|TestDownloadMemory|TestRoom|TestMemory|TestSessionMemory|TestCopies|TestRefreshMemory|TestFloodReleased
UNRACED := $(UNRACED)|TestBodySizes|TestLargeBodies|TestSocketLargeMessage|TestBomb|TestHiddenBomb
UNRACED := $(UNRACED)|TestCodedAnswer|TestBodyCodingRefused|TestUnscannable|TestMatrix
UNRACED := $(UNRACED)|TestTooManyLinks|TestEstimate|TestSparse|TestTrust
UNRACED := $(UNRACED)|TestNext|TestNextRandom|TestWrapped|TestRecordBuffers|TestRuntimeSettings|TestBodies|TestLookup|TestUnansweredRequests
UNRACED := ^($(UNRACED)|TestScripts|TestDocumentedCommands)$$
# The longest comes first, and the others beside it.
unit:
	$(GO) vet ./...
	CGO_ENABLED=1 $(GO) test -trimpath -race -p 3 -timeout 10m -skip '$(UNRACED)' $$($(GO) list ./internal/proxy ./... | grep -v -e /test/e2e -e /test/boundary -e /test/attack -e /test/interop -e /vm/)
	$(GO) test -trimpath -timeout 5m -run '$(UNRACED)' ./cmd/cutout ./internal/coding ./internal/guest/agent ./internal/image ./internal/keeper ./internal/match ./internal/proxy ./internal/relay ./internal/secret ./internal/source/helper

# Tests that start machines and boundaries, a few at a time.
VMTIME ?= 12m
vm-test:
	CUTOUT=$(BIN)/cutout $(GO) test -trimpath -p 2 -timeout $(VMTIME) ./internal/vm/... ./test/boundary ./test/e2e/...

# The corpus, one line for each probe; and of it the heart, sent to a real
# cutout boundary in each of its ways. That needs root, for network namespaces.
WAYS := unix tap connect socks
HEART := TestCorpus/^(A0|A1|A3|B1|C1)$$
IN_WAYS = cd test/attack && for way in $(WAYS); do $(GO) test -trimpath -count=1 -parallel 4 -timeout 15m $(1) -way $$way -cutout $(BIN)/cutout || exit 1; done
attack: build
	cd test/attack && $(GO) test -trimpath -count=1 -parallel 4 -timeout 5m
	$(call IN_WAYS,-run '$(HEART)')

# All of it in each way.
attack-ways: build
	$(call IN_WAYS)

# Shows that the corpus notices each check that is taken out. Slow. With
# WAY=unix and the like, on the way to a real cutout boundary.
mutate:
	$(GO) run -trimpath ./test/attack/mutate -way '$(WAY)' $(MUTATIONS)

# Real clients and servers with the boundary between them. Needs root, for a
# network namespace.
interop: test/interop/node/node_modules
	tools/prepare.sh $(INTEROP_PROGRAMS)
	$(GO) test -trimpath -count=1 -timeout 3m ./test/interop

test/interop/node/node_modules: test/interop/node/package-lock.json
	tools/prepare.sh node npm
	npm ci --prefix test/interop/node --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# Each fuzz target for FUZZTIME.
FUZZTIME ?= 2s
fuzz:
	tools/fuzz.sh $(FUZZTIME)

# The KVM path, in an emulated machine with nested virtualisation. Slow.
test-kvm: setup
	CUTOUT=$(BIN)/cutout CUTOUT_TEST_KVM=1 $(GO) test -trimpath -v -timeout 45m ./test/kvm

test-long: export CUTOUT_TEST_LONG = 1
test-long: export VMTIME = 40m
test-long:
	tools/prepare.sh $(LONG_PROGRAMS)
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory unit attack interop vm-test
	$(MAKE) fuzz FUZZTIME=2m

# Times of starts, and the speed of one stream. Needs root.
bench: setup
	$(GO) run -trimpath ./bench $(BIN)/cutout
	$(GO) run -trimpath ./bench/throughput $(BIN)/cutout

# What a flood of connections does to its keeper and to another sandbox.
flood: build
	$(GO) run -trimpath ./bench/flood $(BIN)/cutout

# Copies of a value in the memory of a real keeper. Needs root.
memscan: setup
	$(GO) run -trimpath ./bench/memscan $(BIN)/cutout

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	@test -z "$$($(TOOL) gofumpt -l .)" || { $(TOOL) gofumpt -l .; exit 1; }
	$(TOOL) staticcheck ./...

# Asks vuln.go.dev, so it is not part of lint.
vuln:
	$(TOOL) govulncheck ./...

# Platforms that are not tested must still compile.
cross:
	GOOS=linux GOARCH=arm64 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/cutout

clean:
	rm -rf $(BIN) $(CUTOUT_HOME) test/interop/node/node_modules
