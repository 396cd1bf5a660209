GO       ?= go
FUZZTIME ?= 30s

export CGO_ENABLED = 0

.PHONY: build check test test-race test-interop test-alerts test-deploy test-predictions fuzz lint lint-shell bench experiment

# bin/lull, and what "lull bench" runs beside it: bin/floor, bin/slowhandler, bin/peer,
# bin/reader, bin/backend, bin/topicserver and bin/clusternode.
build:
	$(GO) build -o bin/ . ./loadgen/floor ./loadgen/slowhandler ./loadgen/peer ./loadgen/reader ./loadgen/backend ./server/internal/topicserver ./loadgen/clusternode

# All that must hold before a change lands. .ci/run installs what it needs.
check: test lint test-alerts test-deploy lint-shell test-race test-interop

test:
	$(GO) test ./...

# Needs a C compiler.
test-race:
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout 15m ./...

# Other clients against the server, and the generator against other servers. Needs Node,
# Python, nginx and Chromium: server/testdata/interop/install.
test-interop:
	$(GO) test -tags interop -run Interop -count=1 . ./server ./server/admin ./loadgen ./loadgen/web ./loadgen/result

# Prometheus' rules. Needs promtool.
test-alerts:
	promtool check rules server/admin/alerts.yml
	promtool test rules server/admin/alerts_test.yml

# Units, cloud-init data, Terraform and Nix modules. Needs what
# tuning/deploy/install-checkers installs.
test-deploy:
	tuning/deploy/check

# Runs into nine limits, to see whether the doctor predicts them. Needs root, some
# programs, which it names if they are missing, and a machine that has little else
# to do; puts back what it sets.
test-predictions:
	$(GO) test -tags reality -run Predictions -count=1 -v .

# Each fuzz test in turn, for FUZZTIME: the parsers, and a reactor's random life. Go's fuzzer
# sometimes fails with "context deadline exceeded" when its time is over: it has found nothing.
fuzz:
	for d in frame server internal/record internal/deflate server/internal/gate server/internal/proxy server/cluster/internal/presence server/cluster/internal/history loadgen/measure loadgen/plan loadgen/scenario loadgen/result loadgen/tsung loadgen/agent tuning; do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z]*' $$d/*_test.go | cut -c6-); do \
			out=$$($(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) ./$$d 2>&1); code=$$?; echo "$$out"; \
			case "$$code $$out" in \
				"0 "*) ;; \
				*"Failing input"*) exit 1;; \
				*"context deadline exceeded"*) ;; \
				*) exit 1;; \
			esac; \
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
	shellcheck .ci/run server/testdata/interop/install loadgen/experiment/generators/install

# Takes a few minutes.
bench: build
	$(GO) test -run '^$$' -bench . ./frame ./server
	bin/lull bench

# Takes a few minutes, and as many gigabytes as it finds.
experiment: build
	bin/lull experiment
