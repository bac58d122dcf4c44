# The developer's door. What each target needs is installed by scripts/setup.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
FUZZ_SECONDS ?= 60
FUZZ_SMOKE ?= 30
BOOTS ?= 100
# What runs in an emulated host: about five minutes of it, and no guest program that fails
# there outside of guests too, because of the emulator (faults).
KEYED ?= --selftests channels,codegen,collide,debugger,forks,heap,memory,signals,threads \
	boot_cloud boot_backports selftest_cloud random_layouts console_keys shutdown killed_space
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET = $(or $(CARGO_TARGET_DIR),target)/release
# The monitor has no unwinder, which the profile of the tests wants.
CLIPPY_MONITOR = $(CARGO) clippy --package monitor --all-targets -- -D warnings
CLIPPY = $(CARGO) clippy --profile checked --workspace --exclude monitor --all-targets -- -D warnings && \
	$(CLIPPY_MONITOR)
# Clippy is a compiler too: what it has looked at need not be compiled again. Its arguments are what `cargo clippy`
# makes of "-- -D warnings".
LINTING = env RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__

help:
	@echo 'make run      build, make a Debian guest with a web server (once), start it, fetch its'
	@echo '              page, and attach its console'
	@echo 'make check    format, lints, guest programs on the host (quick)'
	@echo 'make test     all tests: crates, guest programs, a little fuzzing, end to end, hostile'
	@echo '              kernels, escapes from the jail'
	@echo 'make suites   its end-to-end part alone, with binaries that are built already'
	@echo 'make image    guests built in every way, as users who may and who may not'
	@echo 'make hostile  guest kernels that break every rule (TESTS="NAME or kind ...")'
	@echo 'make devices  disks and networks in guests'
	@echo 'make exec     commands and copies into guests without a network'
	@echo 'make debian   a whole Debian in a guest: ssh, apt, iperf3, stressed disks, swap'
	@echo 'make daemon   the control daemon: killed under load, many domains, two users'
	@echo 'make kills    every program killed at each of its points'
	@echo 'make terminals'
	@echo '              console, top and shell on a terminal whose screen is read'
	@echo 'make drill    what an attacker inside the jail can do'
	@echo 'make e2e-keyed'
	@echo '              a part of the end-to-end tests, for machines without protection keys or'
	@echo '              LVM: in an emulated host that has them'
	@echo 'make bench    measure against native and QEMU TCG'
	@echo 'make soak     BOOTS=$(BOOTS) boots in a row, three ways; then hostile programs, and'
	@echo '              a mixed load of SOAK_SECONDS=3600 that verifies itself'
	@echo 'make fuzz     FUZZ_SECONDS=$(FUZZ_SECONDS) seconds for each fuzz target'
	@echo 'make build    release binaries in $(TARGET)'
	@echo 'make deb      a Debian package'
	@echo 'make package  installs it into a bare system, works with it, purges it'
	@echo 'make systemd  the same where systemd runs: units, domains that start and stop with the host'
	@echo 'make install  PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'

build:
	@scripts/setup build
	$(CARGO) build --release --bins
	scripts/build-guest-agent $(TARGET)

run:
	@scripts/run

setup:
	@scripts/setup test

check:
	@scripts/setup build
	$(CARGO) fmt --all --check
	$(CLIPPY)
	scripts/check-tree
	scripts/check-guest

# The crates' own tests run with the checks of a debug build, what users run end to end. Two cores are kept
# busy: tests wait a lot, compilers and fuzzers do not.
test:
	@scripts/setup packages
	scripts/beside 'scripts/setup test' $(MAKE) --no-print-directory compiled
	scripts/check-tree
	scripts/beside 'nice -n 15 $(CARGO) build --release --bins' $(LINTING) XENOLITH_TEST_KERNELS=$(CURDIR)/out/boot \
		ORACLE_SECONDS=$(FUZZ_SMOKE) ORACLE_SEED=random $(CARGO) test --profile checked --workspace
	scripts/check-guest
	scripts/build-guest-agent $(TARGET)
	scripts/beside 'nice -n 15 $(FUZZING) && $(MAKE) --no-print-directory machines' $(MAKE) --no-print-directory domains

# What needs a compiler alone, while kernels come and images are made.
compiled:
	$(CARGO) fmt --all --check
	$(CLIPPY_MONITOR)
	$(LINTING) $(CARGO) test --profile checked --workspace --no-run

# A smoke of each fuzz target, the longest of those that read what a stranger may have made whole: kernels.
LOADERS = kernel_bzimage kernel_elf kernel_lzo kernel_notes
FUZZ = env FUZZ_TIMEOUT=60 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 fuzz/run
FUZZING = $(FUZZ) $(FUZZ_SMOKE) $(LOADERS) && nice -n 15 $(FUZZ) 10 \
	$(filter-out $(LOADERS),$(basename $(notdir $(wildcard fuzz/targets/*.rs))))

# Everything end to end, in two parts that may run side by side.
suites: domains machines

domains:
	tests/e2e --bin $(TARGET)
	tests/hostile --bin $(TARGET)
	tests/drill --bin $(TARGET)
	tests/devices --bin $(TARGET)
	tests/exec --bin $(TARGET)
	tests/kills --bin $(TARGET)
	tests/terminals --bin $(TARGET)
	tests/package --bin $(TARGET)
	tests/daemon --bin $(TARGET)

machines:
	scripts/beside 'nice -n 15 tests/image --bin $(TARGET)' $(MAKE) --no-print-directory booted

booted:
	tests/debian --bin $(TARGET)
	tests/systemd --bin $(TARGET)

daemon: setup build
	tests/daemon --bin $(TARGET) $(TESTS)

kills: setup build
	tests/kills --bin $(TARGET) $(TESTS)

devices: setup build
	tests/devices --bin $(TARGET) $(TESTS)

image: setup build
	tests/image --bin $(TARGET) $(TESTS)

terminals: setup build
	tests/terminals --bin $(TARGET) $(TESTS)

exec: setup build
	tests/exec --bin $(TARGET) $(TESTS)

debian: setup build
	tests/debian --bin $(TARGET) $(TESTS)

drill: setup build
	tests/drill --bin $(TARGET)

e2e: setup build
	tests/e2e --bin $(TARGET) $(TESTS)

hostile: setup build
	tests/hostile --bin $(TARGET) $(TESTS)

e2e-keyed: build
	@scripts/setup keyed
	scripts/keyed-host -n tests/e2e --bin $(TARGET) $(KEYED)
	scripts/keyed-host tests/devices --bin $(TARGET) logical_volume

bench: build
	@scripts/setup bench
	scripts/bench --bin $(TARGET) $(BENCH)

soak: setup build
	scripts/soak --bin $(TARGET) $(BOOTS)

fuzz:
	@scripts/setup build
	fuzz/run $(FUZZ_SECONDS)

install: build install-built

# Without building first.
install-built:
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/xenolith \
		$(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(TARGET)/xm $(DESTDIR)$(PREFIX)/bin/xm
	ln -sf xm $(DESTDIR)$(PREFIX)/bin/xl
	install -m 755 $(TARGET)/xendomain $(TARGET)/space $(TARGET)/xenstored $(TARGET)/xenblock $(TARGET)/xennet \
		$(TARGET)/xenchannel $(TARGET)/xenguest \
		$(TARGET)/xend $(DESTDIR)$(PREFIX)/libexec/xenolith
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/default $(DESTDIR)/etc/xen/auto
	for unit in xend.service xend.socket xendomains.service; do \
		sed 's|@LIBEXEC@|$(PREFIX)/libexec/xenolith|' packaging/systemd/$$unit \
			>$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; \
	done
	sed 's|@BIN@|$(PREFIX)/bin|; s|@LIBEXEC@|$(PREFIX)/libexec/xenolith|' packaging/xendomains >$(DESTDIR)$(PREFIX)/libexec/xenolith/xendomains
	chmod 755 $(DESTDIR)$(PREFIX)/libexec/xenolith/xendomains
	[ -e $(DESTDIR)/etc/default/xendomains ] || \
		install -m 644 packaging/xendomains.default $(DESTDIR)/etc/default/xendomains
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 docs/man8/*.8 $(DESTDIR)$(PREFIX)/share/man/man8
	for tool in xm xl; do \
		install -m 644 completions/$$tool.bash \
			$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$tool && \
		install -m 644 completions/_$$tool $(DESTDIR)$(PREFIX)/share/zsh/site-functions && \
		install -m 644 completions/$$tool.fish \
			$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d || exit 1; \
	done

deb: build
	@scripts/deb

package: setup build
	tests/package --bin $(TARGET)

systemd: setup build
	tests/systemd --bin $(TARGET)

clean:
	$(CARGO) clean
	rm -rf out

.PHONY: help build run setup check compiled test suites domains machines booted e2e hostile daemon kills terminals devices exec image debian drill e2e-keyed bench soak fuzz install install-built deb package systemd clean
