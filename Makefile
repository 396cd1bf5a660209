GO       ?= go
FUZZTIME ?= 30s

export CGO_ENABLED = 0

.PHONY: reality build test race interop rules shipped fuzz bench experiment lint

# bin/lull, and bin/floor to compare it with.
build:
	$(GO) build -o bin/ . ./loadgen/floor

test:
	$(GO) test ./...

# Needs a C compiler.
race:
	CGO_ENABLED=1 $(GO) test -race -shuffle=on ./...

# Needs Node, Python and Chromium: server/testdata/interop/install.
interop:
	$(GO) test -tags interop -run Interop -count=1 ./server ./server/admin

# Needs promtool, of Prometheus.
rules:
	promtool check rules server/admin/alerts.yml
	promtool test rules server/admin/alerts_test.yml

# Needs what tuning/deploy/install-checkers installs.
shipped:
	tuning/deploy/check

fuzz:
	for f in $$(grep -ho '^func Fuzz[A-Za-z]*' frame/*_test.go | cut -c6-); do \
		$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) ./frame || exit 1; \
	done

# Runs into seven limits, to see whether the doctor was right. Needs root, nft and
# ip; what it sets is put back.
reality:
	$(GO) test -tags reality -run Predictions -count=1 -v .

# Both need a few minutes; the second also as many gigabytes as it finds.
bench: build
	$(GO) test -run '^$$' -bench . ./frame ./server
	bin/lull bench

experiment: build
	bin/lull experiment

lint:
	test -z "$$(gofmt -l .)"
	$(GO) vet -tags "interop reality" ./...
	$(GO) tool staticcheck -tags "interop reality" ./...
