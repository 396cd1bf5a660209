GO       ?= go
FUZZTIME ?= 30s

export CGO_ENABLED = 0

.PHONY: build check test test-race test-interop test-alerts test-deploy test-predictions fuzz lint lint-shell bench experiment

# bin/lull, and what "lull bench" runs beside it: bin/floor, bin/slowhandler and bin/peer.
build:
	$(GO) build -o bin/ . ./loadgen/floor ./loadgen/slowhandler ./loadgen/peer

# All that must hold before a change lands. .ci/run installs what it needs.
check: FUZZTIME = 5s
check: test lint test-alerts test-deploy lint-shell test-race test-interop fuzz

test:
	$(GO) test ./...

# Needs a C compiler.
test-race:
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout 15m ./...

# Other clients against the server. Needs Node, Python and Chromium:
# server/testdata/interop/install.
test-interop:
	$(GO) test -tags interop -run Interop -count=1 . ./server ./server/admin

# Prometheus' rules. Needs promtool.
test-alerts:
	promtool check rules server/admin/alerts.yml
	promtool test rules server/admin/alerts_test.yml

# Units, cloud-init data, Terraform and Nix modules. Needs what
# tuning/deploy/install-checkers installs.
test-deploy:
	tuning/deploy/check

# Runs into seven limits, to see whether the doctor predicts them. Needs root, nft
# and ip; puts back what it sets.
test-predictions:
	$(GO) test -tags reality -run Predictions -count=1 -v .

# Each fuzz test in turn, for FUZZTIME: the parsers, and a reactor's random life.
fuzz:
	for d in frame server internal/record internal/deflate server/internal/gate server/internal/proxy; do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z]*' $$d/*_test.go | cut -c6-); do \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) ./$$d || exit 1; \
		done; \
	done

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted"; exit 1; fi
	$(GO) vet -tags "interop reality" ./...
	$(GO) tool staticcheck -tags "interop reality" ./...
	for os in darwin windows; do GOOS=$$os $(GO) build ./server ./server/health || exit 1; done # where it does not run, it compiles
	@out=$$($(GO) tool govulncheck ./... 2>&1); code=$$?; echo "$$out"; case "$$code $$out" in \
		"1 "*"fetching vulnerabilities: Get "*) echo "the vulnerability database cannot be reached: nothing was compared with it";; \
		*) exit $$code;; \
	esac

lint-shell:
	shellcheck .ci/run server/testdata/interop/install

# Takes a few minutes.
bench: build
	$(GO) test -run '^$$' -bench . ./frame ./server
	bin/lull bench

# Takes a few minutes, and as many gigabytes as it finds.
experiment: build
	bin/lull experiment
