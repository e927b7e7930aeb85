# The README's commands. `make help` lists them.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO         ?= go
GOFUMPT    := mvdan.cc/gofumpt@v0.12.0
LINTER     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME   ?= 10s
ROUNDS     ?= 200
ARCH       ?= $(shell $(GO) env GOARCH)
RELEASE    ?= bookworm
PROFILE    ?= tools
VARIANT    ?= fallback
MODULES    := $(notdir $(wildcard modules/*))
# For the preloaded library of arm64, built and run on an amd64 machine.
CROSS      := $(if $(filter amd64,$(shell $(GO) env GOHOSTARCH)),gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)
export CGO_ENABLED := 0

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: $(MODULES:%=build-%) ## the modules, into plugins/modules/ (for the collection) and library/ (for ad-hoc use)

# A megabyte of program costs about 25 ms at every task: strip it.
build-%:
	@mkdir -p plugins/modules library
	GOOS=linux GOARCH=$(ARCH) $(GO) build -trimpath -ldflags '-s -w' -o plugins/modules/$* ./modules/$*
	@cp plugins/modules/$*.yml library/ 2>/dev/null || true
	@cp plugins/modules/$* library/$*

docs: ## the modules' documentation, from their argument specs
	$(GO) test ./modules/... -run Documentation -update

test: test-go test-python test-report test-lab ## every test; installs what is missing on Debian and Ubuntu

test-go: ## Go: tables, testscript, race detector, a real OpenSSH server
	tests/integration/apt-install.sh openssh-server openssh-client gcc libc6-dev xfsprogs e2fsprogs $(CROSS)
	NFSLOCK_SSHD=required NFSLOCK_COMPILER=required CGO_ENABLED=1 $(GO) test -race ./...

test-python: ## the action plugin, the roles, the plan of the fix playbook
	tests/unit/run.sh

test-report: ## the fix playbook by its order, the report and its metrics: Ansible, promtool, and the page in Chromium; SHORT=yes: the newest core for most
	tests/report/run.sh

screenshots: ## the README's pictures of the report, into docs/images
	tests/report/run.sh --page --screenshots $(CURDIR)/docs/images -k screenshots

test-lab: build ## the real engine, real containers, rebuilt packages; SHORT=yes leaves out seven minutes of faults
	tests/integration/run.sh

matrix: ## what each build of QEMU, and the preloaded library, does with image locks, in each state of the kernel's: docs/locks.md. Builds both variants first
	MATRIX=yes tests/integration/run.sh -run TestImageLocks -v

host-profile: build ## the program of running guests in containers with all of kolla's QEMU packages; slow the first time: it compiles QEMU
	tests/integration/host-profile.sh

glance: ## what becomes of an import into Glance where image locks are refused, stock and patched: docs/locks.md. Five minutes the first time
	tests/integration/glance.sh

releases: build ## one patch set for Debian 11, 12 and 13 in containers of each; slow the first time
	tests/integration/releases.sh

# NOVA_LIBVIRT_IMAGE=, NOVA_COMPUTE_IMAGE=, CINDER_VOLUME_IMAGE= name images instead; NFSLOCK_PATCH_SET= a set; KEEP=yes leaves the host there.
kolla: build ## real kolla: its images, a whole host, kolla-ansible's deploy, and the fix on it; half an hour the first time, see tests/integration/kolla
	tests/integration/kolla/run.sh

arm64: ## the arm64 program on an arm64 container, on an amd64 machine; builds a patch set of both architectures: half an hour the first time
	tests/integration/arm64.sh

powercut: build ## a power cut at each step of a run and right after it, on ext4 and XFS: a copy of the disk, and a machine that comes up with it; an hour
	NFSLOCK_POWERCUT=all tests/integration/run.sh -run TestPowerCut -v -timeout 4h

soak: build ## ROUNDS runs (200) that are disturbed at random moments; SEED=… repeats a sequence
	NFSLOCK_SOAK_ROUNDS=$(ROUNDS) NFSLOCK_SOAK_SEED=$(SEED) tests/integration/run.sh -run TestSoak -v -timeout 3h

demo: build ## the main job from start to end, shown
	tests/integration/demo.sh

bench: build ## the same job by this module, with packages and with the library, and by a shell loop, in one run; WITH=PROGRAM adds another build of it; the diagnosis, of 6 and of 40 containers; SFTP by it and by OpenSSH; rpcbind_ensure without change
	tests/bench/run.sh
	tests/bench/carriers.sh
	tests/bench/sftp.sh
	tests/integration/nodes/rpcbind.sh speed

preload: ## the preloaded library for both architectures; the shipped bytes come from Debian 12's compilers
	preload/source/build.sh preload/built
	cd preload/built && sha256sum */libnfslock.so >SHA256SUMS

# IMAGE builds in that image instead of a minimal one of RELEASE; VARIANT may name both: fallback disable_ofd, each into OUT-VARIANT.
patch-set: ## rebuilt QEMU packages: RELEASE=bookworm ARCH=amd64 VARIANT=fallback PROFILE=tools OUT=dist/RELEASE-ARCH-PROFILE-VARIANT [IMAGE=…]
	@patch-sets/build.sh "$(RELEASE)" "$(ARCH)" "$(PROFILE)" "$(or $(OUT),dist/$(RELEASE)-$(ARCH)-$(PROFILE)$(if $(word 2,$(VARIANT)),,-$(VARIANT)))" $(VARIANT)

patch-sets: ## every release, profile and variant that is built for real, twice each, one after another: hours; OUT=FOLDER (dist/patch-sets) ONLY="bookworm trixie"
	@patch-sets/all.sh "$(or $(OUT),dist/patch-sets)" $(ONLY)

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz || true); do \
	  echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; done; done

lint: ## Go, shell, YAML, Ansible
	@out=$$($(GO) run $(GOFUMPT) -l .); [ -z "$$out" ] || { echo "not formatted: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(LINTER) run ./...
	$(GO) run $(LINTER) run --tests=false ./...
	$(GO) run $(LINTER) run --build-tags lab,faultpoints ./tests/... ./internal/faultpoint
	@command -v shellcheck >/dev/null || tests/integration/apt-install.sh shellcheck
	shellcheck -x -P SCRIPTDIR $$(git ls-files '*.sh' .ci/run)
	tests/ansible/lint.sh

.PHONY: help build docs test test-go test-python test-report screenshots test-lab matrix host-profile glance releases kolla arm64 powercut soak demo bench preload patch-set patch-sets fuzz lint
