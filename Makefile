# rouse: two commands do everything on a fresh Debian machine as root: `make demo` and `make test`.

OUT     := out
KERNEL  ?= 6.1
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unreleased)
LDFLAGS := -s -w -X main.version=$(VERSION)
# PID 1 runs for milliseconds at a time and has a budget of 4 MiB: small code goes before fast code. Without inlining
# and padding between functions it is 9 % smaller; what has to be fast there is system calls. Names of generic
# functions are cut to a hash (20 KB), slices of a size that is not known are made on the heap, and nothing is
# freed ahead of the collector (20 KB); the collector is that of Go 1.25, which takes longer on large heaps
# and is 45 KB smaller. None of this changes what a program means.
SMALL   := -trimpath -gcflags='all=-l -d=maxshapelen=80,variablemakethreshold=0,freeappend=0'
export CGO_ENABLED := 0
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

.PHONY: help build build-init build-arm64 demo test test-unit test-root test-vm bench bench-quick check fuzz kernels setup clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install with apt what building, testing and the demo need and this machine lacks
	@sh internal/setup.sh

kernels: setup ## fetch Debian's cloud kernels into out/kernels
	@sh internal/vmtest/fetch-kernels.sh $(OUT) 6.1 6.12

build: setup build-init ## build out/init (guest, static) and out/rouse (host)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(OUT)/rouse ./cmd/rouse

build-init:
	GOEXPERIMENT=nogreenteagc go build $(SMALL) -ldflags '$(LDFLAGS) -funcalign=1' -o $(OUT)/init ./init

build-arm64: setup ## build out/arm64/init
	GOARCH=arm64 GOEXPERIMENT=nogreenteagc go build $(SMALL) -ldflags '$(LDFLAGS)' -o $(OUT)/arm64/init ./init

demo: build kernels ## bake a web server and clone it, unsafely and safely; KERNEL=6.12 for the newer kernel
	go build -trimpath -o $(OUT)/webserver ./examples/webserver
	go build -trimpath -tags nowatcher -o $(OUT)/webserver-unsafe ./examples/webserver
	go build -trimpath -ldflags '-s -w' -o $(OUT)/plaininit ./examples/plaininit
	go build -trimpath -o $(OUT)/demo ./examples/demo
	@$(OUT)/demo -bin $(OUT) -kernel $(OUT)/kernels/$(KERNEL)

test: test-unit test-root test-vm ## every tier

test-unit: build ## unit tests with the race detector
	CGO_ENABLED=1 go test -race ./...

test-root: build ## tests that need root, each in namespaces of its own
	go test -tags root -count=1 ./acpi/... ./firewall/... ./genid/... ./quiesce/... ./rootfs/... ./service/... ./control/... ./internal/vmtest

test-vm: build kernels ## tests in QEMU guests, one package after the other
	go test -tags vm -count=1 -p 1 -timeout 55m ./internal/vmtest ./vmm ./rootfs/image ./genid

bench: build kernels ## compare with what people use, and write docs/performance.md (30 to 40 minutes); SUITES=init,gate for some
	@sh bench/fetch-peers.sh $(OUT)
	go run ./bench -only "$(SUITES)"

bench-quick: build kernels ## see that every comparison works
	@sh bench/fetch-peers.sh $(OUT)
	go run ./bench -quick -only "$(SUITES)"

check: setup build-arm64 ## gofmt, vet, staticcheck, all for every build tag
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	go vet ./... && go vet -tags root,vm ./... && go vet -tags nowatcher ./examples/webserver && go vet -tags vmfault ./init
	GOARCH=arm64 go vet ./...
	go tool staticcheck ./... && go tool staticcheck -tags root,vm ./...

fuzz: setup ## every fuzz target for FUZZTIME (10s)
	@sh internal/fuzz.sh $(or $(FUZZTIME),10s)

clean: ## remove what was built; kernels stay
	rm -rf $(OUT)/init $(OUT)/rouse $(OUT)/arm64 $(OUT)/demo $(OUT)/webserver $(OUT)/webserver-unsafe $(OUT)/plaininit
