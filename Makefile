# make demo       build, start a private wharfd, run a container, show what ctl can do, clean up
# make test       every test tier that runs on this machine (e2e needs root; sudo is used if need be)
# make check      formatting, lints, documentation, licences and bans
# make install    into PREFIX (/usr/local), below DESTDIR if set; make uninstall takes it away again
# make bench      side by side with crun, podman, Docker and runit; results in docs/results/
# make vm         the e2e tests on pure cgroup v2 with systemd, in a virtual machine; VM_TESTS names some of them
# make soak       start and remove containers for SOAK_MINUTES and look for what is left behind; then a hundred times the
#                 simulated hosts of make test, ten times its kills, twice its failing system calls and power cuts
# make fuzz       property tests with FUZZ_CASES cases each
#
# Every target installs what it needs and does not find (scripts/need; Debian and Ubuntu).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# One thing after the other: cargo is parallel in itself, and the output stays readable.
.NOTPARALLEL:

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
# dbus-daemon reads policies from /usr/share and /etc only.
DBUSDIR ?= $(if $(filter /usr,$(PREFIX)),$(PREFIX)/share/dbus-1/system.d,$(SYSCONFDIR)/dbus-1/system.d)
MANDIR ?= $(PREFIX)/share/man/man1
SOAK_MINUTES ?= 5
SOAK_SEEDS ?= 1000000
SOAK_KILLS ?= 10000
SOAK_SYSCALL_FAULTS ?= 4000
SOAK_POWER_CUTS ?= 400
FUZZ_CASES ?= 100000
BENCH_ROUNDS ?= 40
VM_TESTS ?=
# e2e tests mostly wait for the kernel, so more of them than there are processors run at a time.
E2E_THREADS ?= 4

# The tests of the real kernel are root's; for anybody else they are run through sudo.
ifneq ($(shell id -u),0)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER ?= sudo -E
SUDO := sudo
endif

.PHONY: help demo build failpoints release test check install uninstall soak fuzz bench vm deny

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

build:
	@scripts/need build
	$(CARGO) build --locked

release:
	@scripts/need build
	$(CARGO) build --locked --release

demo: build
	@scripts/need demo
	@$(SUDO) scripts/demo target/debug

# wharfd in which tests can kill whoever reaches a chosen point, beside the ordinary one, which is built again.
failpoints:
	@scripts/need build
	$(CARGO) build --locked -p wharfd --features failpoints
	cp -f target/debug/wharfd target/debug/wharfd-failpoints

test: failpoints build
	@scripts/need test
	$(CARGO) test --locked --workspace --exclude wharf-tests --no-fail-fast
	RUST_TEST_THREADS=$(E2E_THREADS) $(CARGO) test --locked -p wharf-tests --no-fail-fast

check: deny
	@scripts/need build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

deny:
	@scripts/need build
	scripts/deny

# Under sudo, which has no cargo as a rule, what was built before is installed: `make release && sudo make install`.
install: $(if $(SUDO_USER),,release)
	scripts/install install target/release '$(DESTDIR)' '$(PREFIX)' '$(SYSCONFDIR)' '$(UNITDIR)' '$(DBUSDIR)' '$(MANDIR)'

uninstall:
	scripts/install uninstall target/release '$(DESTDIR)' '$(PREFIX)' '$(SYSCONFDIR)' '$(UNITDIR)' '$(DBUSDIR)' '$(MANDIR)'

bench: release
	@scripts/need bench
	$(SUDO) benches/run target/release $(BENCH_ROUNDS)
	$(SUDO) benches/supervision target/release $(BENCH_ROUNDS)

# Some ten minutes where nothing but emulation (qemu's TCG) is at hand.
vm: build
	@scripts/need vm
	tests/vm/run target/debug $(VM_TESTS)

soak: release failpoints build
	@scripts/need demo test
	$(SUDO) scripts/soak target/release $(SOAK_MINUTES)
	WHARF_SIM_SEEDS=$(SOAK_SEEDS) $(CARGO) test --locked --release -p wharf-tests --test simulation -- --nocapture
	WHARF_KILLS=$(SOAK_KILLS) WHARF_SYSCALL_FAULTS=$(SOAK_SYSCALL_FAULTS) WHARF_POWER_CUTS=$(SOAK_POWER_CUTS) \
		$(CARGO) test --locked -p wharf-tests --test faults -- --nocapture

fuzz:
	@scripts/need build
	PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --locked --release -p wharf-oci --lib
