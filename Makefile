# Targets: check (what CI runs), test, imports (the table of imports, and what is pure), fuzz (each fuzz test for FUZZTIME),
# jepsen (real processes under faults), generate, cluster (three nodes on loopback).
.PHONY: jepsen fuzz check format vet staticcheck imports generated test generate cluster

check: format vet staticcheck imports generated test

format:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }

# A test build (tag kvdtest, docs/proof.md) has files that others have not.
vet:
	go vet ./...
	go vet -tags kvdtest ./internal/faults ./storage ./node ./transport ./cmd/kvd ./jepsen/nemesis

staticcheck:
	go tool staticcheck ./...
	go tool staticcheck -tags kvdtest ./internal/faults ./storage ./node ./transport ./cmd/kvd ./jepsen/nemesis

# imports: who may import whom, and that what is pure is; part of test, and here first because it takes a second.
imports:
	go test .

# test: the simulator has one goroutine, and its mutants are built without the race detector too.
test:
	go test -race $$(go list ./... | grep -v /sim$$)
	go test -race -tags kvdtest ./internal/faults ./jepsen/nemesis
	go test -tags kvdtest ./cmd/kvd -run 'TestKilled|TestFaults|TestStalledDisk|TestLinks|TestCrashPoints'
	go test -tags kvdtest ./node -run 'TestTermsRise|TestVotesInMessages'
	go test -timeout 20m ./sim

# jepsen: real processes under faults, the short form; two minutes or three.
jepsen:
	go run ./jepsen --short

generate:
	go tool -modfile=tools/go.mod buf generate

# generated: the committed code is what the protocol buffers give.
generated:
	@rm -rf .generated && mkdir .generated && \
	go tool -modfile=tools/go.mod buf generate -o .generated && \
	for f in api/kvd/v1/*.pb.go; do cmp $$f .generated/$$f || exit 1; done && rm -rf .generated

cluster:
	packaging/cluster.sh

FUZZTIME ?= 2m

fuzz:
	@for file in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do for name in $$(grep -oE '^func Fuzz[A-Za-z]+' $$file | cut -d' ' -f2); do \
	echo "$$(dirname $$file) $$name"; go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$(dirname $$file) || exit 1; done; done
