# SPDX-License-Identifier: Apache-2.0
#
# agentnic: build, test, measure. `make help` lists the targets.
#
# What is built goes to .build/ and skel/, both ignored by git. Results go to results/.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS   += --no-builtin-rules
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS   += --jobs=$(shell nproc)
endif

V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = @printf '  %-8s %s\n' '$(1)' '$(2)'

BUILD  := .build
BIN    := $(BUILD)/bin
PREFIX ?= /usr/local

# Tools: clang is pinned, because the verifier sees what it makes; the system's Python has matplotlib.
CXX     := g++
CLANG   := clang-19
STRIP   := llvm-strip-19
BPFTOOL := PATH=$$PATH:/usr/sbin bpftool
FORMAT  := clang-format-19
TIDY    := clang-tidy-19
PYTHON  := /usr/bin/python3
ARCH    := $(shell uname -m)

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow $(if $(WERROR),-Werror)
CXXFLAGS ?= -O2 -g1
CPPFLAGS := -Iuserspace -Ibpf -I$(BUILD)/include -isystem skel -isystem /usr/include/libnl3
# -MD, not -MMD: the skeletons are included as system headers, and are dependencies all the same.
FLAGS     = -std=c++23 $(WARNINGS) $(CXXFLAGS) $(CPPFLAGS) -MD -MP
COMPILE   = $(CXX) $(FLAGS)
# -O1: with sanitizers, -O2 takes almost twice as long to compile.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -O1
LIBS     := -lxdp -lbpf -luring -lrdmacm -libverbs -lnl-genl-3 -lnl-route-3 -lnl-3 -lmicrohttpd -lsystemd -lcap-ng -lseccomp -lsodium -lnettle -lxxhash -lfmt -lpthread
# No -Wextra: the kernel's own headers do not pass it.
BPFFLAGS := -target bpf -mcpu=v3 -g -O2 -Wall -Werror -Ibpf -I/usr/include/$(ARCH)-linux-gnu -MMD -MP

# Sources. A folder under userspace/cli with a main.cpp is a program of its own.
programs    := agentnic-load agentnic-agent agentnic-audit agentnic-bench agentnic-bulk agentnic-echo agentnic-router
lib_sources := $(filter-out userspace/cli/%,$(shell find userspace -name '*.cpp')) $(wildcard userspace/cli/common/*.cpp)
lib_objects := $(lib_sources:%.cpp=$(BUILD)/%.o)
library     := $(BUILD)/libagentnic.a
# libagentnic-xsk, for programs that own AF_XDP sockets: a part of the library, with the headers that its users include.
xsk_sources := $(wildcard userspace/path/xsk/*.cpp) userspace/path/mapping.cpp userspace/path/sockets/address.cpp userspace/path/sockets/options.cpp userspace/path/sockets/udp.cpp userspace/base/result.cpp userspace/base/stop.cpp
xsk_headers := $(wildcard userspace/path/xsk/*.hpp) userspace/path/mapping.hpp userspace/path/wait.hpp userspace/path/sockets/address.hpp userspace/path/sockets/options.hpp \
               userspace/path/sockets/udp.hpp userspace/base/result.hpp userspace/base/unique_fd.hpp \
               userspace/base/stop.hpp
xsk_version := 0
xsk_static  := $(BUILD)/libagentnic-xsk.a
xsk_shared  := $(BUILD)/libagentnic-xsk.so.$(xsk_version)
xsk_libs    := -lnl-route-3 -lnl-3 -lfmt
bpf_sources := $(wildcard bpf/*.bpf.c)
bpf_objects := $(bpf_sources:%.c=$(BUILD)/%.o)
suites      := unit bpf
test_bins   := $(suites:%=$(BIN)/test-%) $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/fixtures/*.bpf.c))
# Fuzz targets are built twice: with a main() that replays a corpus, and with libFuzzer. What they test is compiled
# with sanitizers each time; whatever else it needs is the library's.
fuzzers     := agent audit bulk datagram parse policy recording
replays     := $(fuzzers:%=$(BUILD)/replay/%)
libfuzzers  := $(fuzzers:%=$(BUILD)/fuzz/%)
# The tests of path A and of bulk with the address and undefined behaviour sanitizers, for `make soak`.
sanitized   := $(BUILD)/replay/test-path
sanitized_sources := $(wildcard tests/unit/bulk_*.cpp tests/unit/tcp_*.cpp tests/unit/udp_*.cpp userspace/bulk/*.cpp userspace/path/rdma/*.cpp userspace/path/sockets/*.cpp userspace/path/uring/*.cpp)
fuzzed      := $(wildcard userspace/policy/*.cpp)
# All that takes or gives ordered JSON, whose layout g++ and clang do not share, is among these.
fuzzed_lines := userspace/agent/wire.cpp userspace/agent/recording.cpp $(wildcard userspace/audit/*.cpp)
manuals     := $(patsubst docs/man/%.scd,$(BUILD)/man/%,$(wildcard docs/man/*.scd))
version     := $(BUILD)/include/version.h
skeletons   := skel/instance.skel.h skel/session.skel.h skel/reuseport.skel.h skel/bench.skel.h
cpp_files    = $(shell find userspace tests -name '*.cpp' -o -name '*.hpp')
bpf_files    = $(shell find bpf tests/fixtures -name '*.c' -o -name '*.h')
shell_files  = $(shell git ls-files -co --exclude-standard | xargs grep -lE '^\#!.*\bbash|^# shellcheck shell=bash' 2>/dev/null)

.PHONY: help
help: ## list the targets
	@echo 'make TARGET'
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "  %-12s %s\n", $$1, $$2 }'
	@echo 'Variables: V=1 shows commands; T=glob runs tests by name; SH=1 opens a shell inside one net test or a guest;'
	@echo '           B=id runs one benchmark; PREFIX and DESTDIR for install.'

.DEFAULT_GOAL := all

# --- what the machine needs ---

.PHONY: deps need
deps: ## install what is missing (apt, Debian 12 and 13)
	@.ci/deps

# The order-only prerequisite of whatever builds or runs; silent when nothing is missing.
need: $(filter deps,$(MAKECMDGOALS))
	@.ci/deps --check || .ci/deps

# --- build ---

.PHONY: all
all: $(programs:%=$(BIN)/%) $(xsk_static) $(xsk_shared) $(manuals) ## build the programs, the library and manuals

# FORCE: looked at in every run, rewritten only when the version changed.
.PHONY: FORCE
$(version): FORCE
	@mkdir -p $(@D)
	@printf '#pragma once\n#define AGENTNIC_VERSION "%s"\n#define AGENTNIC_REVISION "%s"\n' \
	  "$$(sed -n 's/^## \[\([0-9][^]]*\)\].*/\1/p' CHANGELOG.md | head -n 1)" \
	  "$$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)" > $@.$$$$; \
	  cmp -s $@.$$$$ $@ && rm $@.$$$$ || mv $@.$$$$ $@

$(BUILD)/%.bpf.o: %.bpf.c | need
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPFFLAGS) -c $< -o $@
	$(Q)$(STRIP) -g $@

skel/instance.bpf.o: $(bpf_objects)
skel/session.bpf.o: $(BUILD)/bpf/session/session.bpf.o
skel/reuseport.bpf.o: $(BUILD)/bpf/reuseport/reuseport.bpf.o
skel/bench.bpf.o: $(patsubst %.c,$(BUILD)/%.o,$(wildcard bpf/bench/*.bpf.c))
skel/instance.bpf.o skel/session.bpf.o skel/reuseport.bpf.o skel/bench.bpf.o:
	$(call say,JOIN,$@)
	@mkdir -p $(@D)
	$(Q)$(BPFTOOL) gen object $@ $^

$(skeletons): skel/%.skel.h: skel/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@ 2> $(BUILD)/$*.skel.log || { cat $(BUILD)/$*.skel.log >&2; false; }

$(BUILD)/%.o: %.cpp | need $(skeletons) $(version)
	$(call say,CXX,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c $< -o $@

# Catch2's assertions take twice as long to compile with -O2, and what they cost is nobody's time.
$(BUILD)/tests/unit/%.o $(BUILD)/tests/bpf/%.o: CXXFLAGS += -O0

$(library): $(lib_objects)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(xsk_static): $(xsk_sources:%.cpp=$(BUILD)/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/pic/%.o: %.cpp | need $(skeletons) $(version)
	$(call say,CXX,$< (shared))
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -fPIC -c $< -o $@

$(xsk_shared): $(xsk_sources:%.cpp=$(BUILD)/pic/%.o)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(CXXFLAGS) -shared -Wl,-soname,$(@F) -Wl,--no-undefined $^ $(xsk_libs) -o $@

$(BIN)/agentnic-%: $(library)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) $(CXXFLAGS) $(filter %.o,$^) $(library) $(LIBS) -o $@

define program_objects
$(BIN)/agentnic-$(1): $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard userspace/cli/$(1)/*.cpp))
endef
$(foreach p,$(programs:agentnic-%=%),$(eval $(call program_objects,$(p))))

$(BUILD)/man/%: docs/man/%.scd | need
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	$(Q)scdoc < $< > $@

-include $(shell find $(BUILD)/userspace $(BUILD)/pic $(BUILD)/bpf $(BUILD)/tests $(BUILD)/replay $(BUILD)/fuzz -name '*.d' 2>/dev/null)

.PHONY: install
install: all ## install to PREFIX (/usr/local), below DESTDIR
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man3 $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/agentnic/policies $(DESTDIR)$(PREFIX)/share/agentnic/examples
	install -m 755 $(programs:%=$(BIN)/%) $(DESTDIR)$(PREFIX)/sbin
	install -m 644 $(filter %.1,$(manuals)) $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(filter %.3,$(manuals)) $(DESTDIR)$(PREFIX)/share/man/man3
	install -m 644 $(filter %.5,$(manuals)) $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 $(filter %.8,$(manuals)) $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 policies/*.json $(DESTDIR)$(PREFIX)/share/agentnic/policies
	install -m 644 docs/examples/* $(DESTDIR)$(PREFIX)/share/agentnic/examples
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -D -m 644 userspace/units/agentnic.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/agentnic.conf
	for unit in $(notdir $(wildcard userspace/units/*.service userspace/units/*.socket)); do \
	  sed 's|/usr/local/|$(PREFIX)/|' userspace/units/$$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit && \
	  chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; \
	done

	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -m 644 $(xsk_static) $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(xsk_shared) $(DESTDIR)$(PREFIX)/lib
	ln -sf $(notdir $(xsk_shared)) $(DESTDIR)$(PREFIX)/lib/libagentnic-xsk.so
	for header in $(xsk_headers:userspace/%=%); do \
	  install -D -m 644 userspace/$$header $(DESTDIR)$(PREFIX)/include/agentnic/$$header || exit 1; \
	done
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include/agentnic/abi bpf/abi/owner.h bpf/abi/types.h
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(shell sed -n 's/^## \[\([0-9][^]]*\)\].*/\1/p' CHANGELOG.md | head -n 1)|' \
	  userspace/path/xsk/agentnic-xsk.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/agentnic-xsk.pc

# --- test ---

define test_objects
$(BIN)/test-$(1): $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/$(1)/*.cpp))
endef
$(foreach s,$(suites),$(eval $(call test_objects,$(s))))

# The reference model is for the BPF tests.
$(BIN)/test-bpf: $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/model/*.cpp))

# The library comes first, so that of templates that both have its own are taken, which are optimised.
$(suites:%=$(BIN)/test-%): $(library)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) $(CXXFLAGS) -Wl,--whole-archive $(library) -Wl,--no-whole-archive $(filter %.o,$^) -lCatch2Main -lCatch2 $(LIBS) -o $@

$(BUILD)/replay/%.o: %.cpp | need $(skeletons) $(version)
	$(call say,SANITIZE,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(SANITIZE) -c $< -o $@

$(replays): $(BUILD)/replay/%: $(BUILD)/replay/tests/fuzz/%_fuzz.o $(BUILD)/replay/tests/fuzz/replay.o $(library)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(CXXFLAGS) $(SANITIZE) $(filter %.o,$^) $(library) $(LIBS) -o $@

$(BUILD)/fuzz/%.o: %.cpp | need $(skeletons) $(version)
	$(call say,FUZZ,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(FLAGS) $(SANITIZE) -fsanitize=fuzzer-no-link -c $< -o $@

$(libfuzzers): $(BUILD)/fuzz/%: $(BUILD)/fuzz/tests/fuzz/%_fuzz.o $(library)
	$(call say,LINK,$@)
	$(Q)$(CLANG) --driver-mode=g++ $(CXXFLAGS) $(SANITIZE) -fsanitize=fuzzer $(filter %.o,$^) $(library) $(LIBS) -o $@

$(sanitized): $(sanitized_sources:%.cpp=$(BUILD)/replay/%.o) $(library)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(CXXFLAGS) $(SANITIZE) $(filter %.o,$^) $(library) -lCatch2Main -lCatch2 $(LIBS) -o $@

$(foreach f,replay fuzz,$(eval $(patsubst %,$(BUILD)/$(f)/%,policy agent audit recording): $(fuzzed:%.cpp=$(BUILD)/$(f)/%.o)))
$(foreach f,replay fuzz,$(eval $(BUILD)/$(f)/bulk: $(BUILD)/$(f)/userspace/bulk/wire.o $(BUILD)/$(f)/userspace/path/rdma/endpoint.o))
$(foreach f,replay fuzz,$(eval $(BUILD)/$(f)/datagram: $(BUILD)/$(f)/userspace/path/xsk/datagram.o))
$(foreach f,replay fuzz,$(eval $(patsubst %,$(BUILD)/$(f)/%,agent audit recording): $(fuzzed_lines:%.cpp=$(BUILD)/$(f)/%.o)))

.PHONY: test test-unit
test: all $(test_bins) $(replays) ## run the tests; T='glob' by name, SH=1 for a shell inside a net test
	@AGENTNIC_STRIDE=$${AGENTNIC_STRIDE:-25} $(PYTHON) tests/run --jobs 3 $(if $(SH),--shell) $(if $(T),--only '$(T)')

test-unit: all $(test_bins) $(replays) ## run the suites that need no privileges
	@$(PYTHON) tests/run --suite unit --suite check $(if $(T),--only '$(T)')

SOAK_MINUTES ?= 10

.PHONY: soak
soak: all $(test_bins) $(libfuzzers) $(sanitized) ## million-packet models, kill tests at every step, long fuzzing; SOAK_MINUTES=10 for each fuzzer (root)
	@tests/soak $(SOAK_MINUTES) $(fuzzers)

.PHONY: vmtest
vmtest: all $(test_bins) ## the tests in real kernels; K=7.3 for one kernel, T='glob', TIER=full for all tests, SH=1 for a shell in the guest
	@$(PYTHON) vmtest/run $(K:%=--kernel %) $(TIER:%=--tier %) $(if $(T),--only '$(T)') $(if $(SH),--shell)
	$(if $(filter full,$(TIER)),$(if $(K)$(T)$(SH),,@vmtest/selftest))

vm_probes = $(shell awk '!/^\#/ && NF { print "$(BUILD)/vmtest/" $$1 "/probe.json" }' vmtest/kernels.txt)

.PHONY: compat
compat: all ## write docs/compatibility.md from probes of this machine and its NIC (IFACE=eth0, root) and of the last make vmtest
	@[ -n '$(IFACE)' ] || { echo 'make compat: which NIC? make compat IFACE=eth0' >&2; exit 2; }
	@for file in $(vm_probes); do [ -s $$file ] || { echo "make compat: $$file is not there; make vmtest makes it" >&2; exit 1; }; done
	@$(BIN)/agentnic-load probe $(IFACE) --json > $(BUILD)/probe.json
	@jq -e .privileged $(BUILD)/probe.json > /dev/null || { echo 'make compat: run it as root, else most stays unknown' >&2; exit 1; }
	@cp $(BUILD)/probe.json results/probe/host.json
	@for file in $(vm_probes); do cp $$file results/probe/$$(basename $$(dirname $$file)).json; done
	@$(PYTHON) results/compat.py

.PHONY: debian13
debian13: need ## build and run the unit suite in a Debian 13 tree made by debootstrap (root)
	@tests/debian13 $(BUILD)/debian13

# --- style ---

tidy_stamps = $(patsubst %.cpp,$(BUILD)/tidy/%.ok,$(filter %.cpp,$(cpp_files)))

.PHONY: lint
lint: $(tidy_stamps) ## check format, clang-tidy and shellcheck
	$(call say,FORMAT,C and C++)
	$(Q)$(FORMAT) --dry-run --Werror $(cpp_files) $(bpf_files)
	$(call say,SHELL,scripts)
	$(Q)shellcheck $(shell_files)

# After the object, whose dependencies are those of the source: a changed header is checked again.
$(BUILD)/tidy/%.ok: $(BUILD)/%.o .clang-tidy
	$(call say,TIDY,$*.cpp)
	@mkdir -p $(@D)
	$(Q)$(TIDY) --quiet --warnings-as-errors='*' $*.cpp -- -std=c++23 -x c++ $(CPPFLAGS) 2>$(@:.ok=.log) || { cat $(@:.ok=.log) >&2; false; }
	@touch $@

.PHONY: fmt
fmt: ## format C and C++
	$(FORMAT) -i $(cpp_files) $(bpf_files)

# --- use and measure ---

.PHONY: demo
demo: all ## the main job: both paths side by side on a lab of two namespaces (root)
	@$(BIN)/agentnic-bench experiment first-light --policy policies/first-light.json --out results
	@$(PYTHON) results/plot.py results/latest.json

.PHONY: demo-vm
demo-vm: all $(test_bins) ## the demo in a guest with the newest kernel, for those without root; its figures are marked as emulated
	@$(PYTHON) vmtest/run --demo

.PHONY: bench
bench: all ## run the benchmarks; B=id runs one (root)
	@mkdir -p results/bench
	@$(BIN)/agentnic-bench compare $(B) --out results/bench/latest.json

.PHONY: clean
clean: ## remove what was built; .cache/, which has the fetched kernels, stays
	rm -rf $(BUILD) skel
