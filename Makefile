# varve: one Makefile for everything, nothing built outside $(BUILD).
#
#   make            the libraries and $(BUILD)/varve          make V=1 shows the commands
#   make try        set up, build, mount something and show it
#   make check      set up, then every check there is; ends with "N passed, N failed"
#   make check-unit check-conformance check-mount check-crash check-layers check-headers: one of them
#   make check-fsx SECONDS=600: random operations on files, for so long
#   make check-model MODEL_OPS=200000: random work on whole mounts against a model of names and versions
#   make check-asan check-tsan: the tests again under sanitizers, in $(BUILD)/asan and $(BUILD)/tsan
#
# Folders are archives, in the order of knowledge: base < catalog, base < backends, all < fs.
# A unit test links only its own folder and those below it.

BUILD ?= build
SAN ?=
V ?= 0
PREFIX ?= /usr/local
DESTDIR ?=
# Where libfuse3 is installed when it is not the system's: where packaging/setup builds one, if it had to. Empty for the
# system's.
FUSE_PREFIX ?= $(patsubst %/version,%,$(wildcard $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/varve/fuse/version))

ifeq ($(origin CC),default)
CC := gcc
endif
AR ?= ar
CLANG_FORMAT ?= clang-format-14
PKG_CONFIG ?= pkg-config
INSTALL ?= install

FOLDERS := base catalog backends fs

# What the archive of each folder needs below it, in link order.
NEEDS_base := base
NEEDS_catalog := catalog base
NEEDS_backends := backends base
NEEDS_fs := fs backends catalog base

ifeq ($(V),0)
Q := @
say = @printf '  %-7s %s\n' '$(1)' '$(2)'
else
Q :=
say = @:
endif

# ---- Flags -----------------------------------------------------------------

comma := ,
empty :=
space := $(empty) $(empty)

ifneq ($(FUSE_PREFIX),)
FUSE_PC_DIRS := $(patsubst %/,%,$(dir $(wildcard $(addprefix $(FUSE_PREFIX)/,lib/pkgconfig/fuse3.pc \
	lib64/pkgconfig/fuse3.pc lib/*/pkgconfig/fuse3.pc))))
PKG_CONFIG := PKG_CONFIG_PATH=$(subst $(space),:,$(FUSE_PC_DIRS)):$(PKG_CONFIG_PATH) $(PKG_CONFIG)
FUSE_RPATH := $(addprefix -Wl$(comma)-rpath$(comma),$(FUSE_PC_DIRS:/pkgconfig=))
endif

PACKAGES := fuse3 libcurl libxml-2.0 jansson libzstd openssl
PACKAGE_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) 2>/dev/null)
PACKAGE_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null) -llmdb
ifeq ($(SAN),thread)
# Criterion and ThreadSanitizer exclude each other: see tests/tsan/criterion/criterion.h.
CRITERION_CFLAGS := -Itests/tsan
CRITERION_LIBS :=
SOURCES_runner := tests/tsan/runner.c
else
CRITERION_CFLAGS := $(shell $(PKG_CONFIG) --cflags criterion 2>/dev/null)
CRITERION_LIBS := $(shell $(PKG_CONFIG) --libs criterion 2>/dev/null)
SOURCES_runner :=
endif

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Werror
CPPFLAGS_ALL := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -I. $(PACKAGE_CFLAGS) $(CPPFLAGS)
# Criterion's Test() has external linkage and no prototype.
TEST_CFLAGS := -Itests $(CRITERION_CFLAGS) -Wno-missing-prototypes

ifeq ($(SAN),)
# The sanitizers check more than _FORTIFY_SOURCE does and cannot see through its wrappers.
HARDEN := -O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2
else
# Their instrumentation also hides from the compiler what is initialized.
HARDEN := -O1 -fsanitize=$(SAN) -fno-sanitize-recover=all -Wno-maybe-uninitialized
endif
CFLAGS_BASE := -std=gnu17 -g -fno-omit-frame-pointer -pthread -fPIC $(WARNINGS) $(HARDEN)
CFLAGS_ALL := $(CFLAGS_BASE) $(CFLAGS) $(CPPFLAGS_ALL)
LDFLAGS_ALL := -pthread $(if $(SAN),-fsanitize=$(SAN)) -Wl,-z,relro,-z,now,--as-needed $(LDFLAGS)
LIBS_ALL := $(FUSE_RPATH) $(PACKAGE_LIBS)

# ---- What there is ---------------------------------------------------------

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
archives = $(patsubst %,$(BUILD)/lib%.a,$(1))

$(foreach f,$(FOLDERS),$(eval SOURCES_$(f) := $(sort $(wildcard $(f)/*.c))))
SOURCES_support := $(sort $(wildcard tests/support/*.c))
SOURCES_tools := $(sort $(filter-out tools/test% tools/bench%,$(wildcard tools/*.c)))
SOURCES_conformance := $(sort $(wildcard tests/conformance/*.c))
SOURCES_unit := $(sort $(foreach f,$(FOLDERS),$(wildcard tests/unit/$(f)/*.c)))
SOURCES_mount := $(sort $(wildcard tests/mount/*.c))
SOURCES_crash := $(sort $(wildcard tests/crash/*.c))

RUNNER := $(call objects,$(SOURCES_runner))

programs = $(patsubst tests/%.c,$(BUILD)/tests/%,$(1))
PROGRAMS_unit := $(call programs,$(SOURCES_unit))
PROGRAMS_conformance := $(if $(SOURCES_conformance),$(BUILD)/tests/conformance/conformance)
PROGRAMS_mount := $(call programs,$(SOURCES_mount))
PROGRAMS_crash := $(call programs,$(SOURCES_crash))

LIBS_OURS := $(call archives,$(FOLDERS))
VARVE := $(if $(SOURCES_tools),$(BUILD)/varve)
HEADERS := $(sort $(wildcard include/*.h include/varve/*.h $(addsuffix /*.h,$(FOLDERS)) tools/*.h tests/support/*.h))
C_FILES := $(foreach f,$(FOLDERS) support tools runner conformance unit mount crash,$(SOURCES_$(f)))

.PHONY: all setup setup-tests try check check-fsx check-asan check-tsan check-layers check-headers format install clean
.PHONY: programs-unit programs-conformance programs-mount programs-crash programs-model check-model
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

all: $(LIBS_OURS) $(VARVE)

# ---- Compiling -------------------------------------------------------------

# $(call stamp,FILE,TEXT): FILE holds TEXT and is written only when it does not, so that what depends on it is
# rebuilt when flags or file lists change. Done while reading this file: a rule would never be up to date.
same = $(and $(findstring |$(strip $(1))|,|$(strip $(2))|),$(findstring |$(strip $(2))|,|$(strip $(1))|))
stamp = $(if $(call same,$(file <$(1)),$(2)),,$(file >$(1),$(strip $(2))))

ifneq ($(MAKECMDGOALS),clean)
$(shell mkdir -p $(BUILD)/obj)
$(call stamp,$(BUILD)/obj/.flags,$(CC) $(CFLAGS_ALL) $(TEST_CFLAGS) $(LDFLAGS_ALL) $(LIBS_ALL) $(CRITERION_LIBS))
$(foreach f,$(FOLDERS) support,$(call stamp,$(BUILD)/obj/.list-$(f),$(f): $(SOURCES_$(f))))
endif

COMPILE = $(CC) $(CFLAGS_ALL) -include base/banned.h -MMD -MP -MF $(@:.o=.d)

$(BUILD)/obj/tests/%.o: tests/%.c $(BUILD)/obj/.flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(TEST_CFLAGS) -c $< -o $@

$(BUILD)/obj/%.o: %.c $(BUILD)/obj/.flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c $< -o $@

define archive
$(BUILD)/lib$(1).a: $(call objects,$(SOURCES_$(1))) $(BUILD)/obj/.list-$(1)
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@ && $(AR) rcs $$@ $(call objects,$(SOURCES_$(1)))
endef
$(foreach f,$(FOLDERS) support,$(eval $(call archive,$(f))))

# ---- Linking ---------------------------------------------------------------

LINK = $(CC) $(CFLAGS_BASE) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^)

$(BUILD)/varve: $(call objects,$(SOURCES_tools)) $(call archives,$(NEEDS_fs))
	$(call say,LINK,$@)
	$(Q)$(LINK) $(LIBS_ALL)

define unit_folder
$(call programs,$(filter tests/unit/$(1)/%,$(SOURCES_unit))): $(BUILD)/tests/unit/$(1)/%: \
		$(BUILD)/obj/tests/unit/$(1)/%.o $(RUNNER) $(call archives,$(NEEDS_$(1)))
	$$(call say,LINK,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(LINK) $(LIBS_ALL) $(CRITERION_LIBS)
endef
$(foreach f,$(FOLDERS),$(if $(filter tests/unit/$(f)/%,$(SOURCES_unit)),$(eval $(call unit_folder,$(f)))))

$(BUILD)/tests/conformance/conformance: $(call objects,$(SOURCES_conformance)) $(RUNNER) $(call archives,$(NEEDS_backends))
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LIBS_ALL) $(CRITERION_LIBS)

# These drive the binary from outside; the other archives are at hand for what looks into a state directory.
$(PROGRAMS_mount) $(PROGRAMS_crash): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(RUNNER) \
		$(BUILD)/libsupport.a $(call archives,$(NEEDS_fs))
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LIBS_ALL) $(CRITERION_LIBS)

# ---- Checking --------------------------------------------------------------

# tests/run builds these itself, with -k, so that one folder that does not compile leaves the others tested.
programs-unit: $(PROGRAMS_unit)
programs-conformance: $(PROGRAMS_conformance)
programs-mount: $(VARVE) $(PROGRAMS_mount) $(BUILD)/bench/scale
programs-crash: $(VARVE) $(PROGRAMS_crash)
programs-model: $(VARVE)

RUN = MAKE='$(MAKE)' tests/run

setup:
	$(Q)packaging/setup

setup-tests:
	$(Q)packaging/setup --tests

try: setup
	+$(Q)$(MAKE) all
	$(Q)BUILD=$(BUILD) tools/try.sh

check: setup-tests
	+$(Q)BUILD=$(BUILD) SAN=$(SAN) $(RUN) layers headers unit conformance mount crash

check-unit check-conformance check-mount check-crash:
	+$(Q)BUILD=$(BUILD) SAN=$(SAN) $(RUN) $(@:check-%=%)

SECONDS ?= 60
check-fsx: setup-tests
	+$(Q)BUILD=$(BUILD) SAN=$(SAN) VARVE_FSX_SECONDS=$(SECONDS) PROGRAM_TIMEOUT=$$(($(SECONDS) * 2 + 300)) $(RUN) mount/fsx

check-model: setup-tests
	+$(Q)BUILD=$(BUILD) SAN=$(SAN) $(RUN) model

check-asan:
	+$(Q)BUILD=$(BUILD)/asan SAN=address,undefined $(RUN) unit conformance mount

check-tsan:
	+$(Q)BUILD=$(BUILD)/tsan SAN=thread $(RUN) unit conformance mount

check-layers:
	$(Q)tools/check-layers

# Every header must stand alone; banned.h is left out because it brings system headers along.
check-headers:
	$(Q)failed=0; for header in $(HEADERS); do \
		printf '#include "%s"\n' $$header | $(CC) $(CFLAGS_ALL) -Itests -fsyntax-only -x c - || \
			{ echo "$$header does not compile alone" >&2; failed=1; }; \
	done; exit $$failed

format:
	$(Q)$(CLANG_FORMAT) -i $(C_FILES) $(HEADERS)

# ---- Installing ------------------------------------------------------------

install: all
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin
	$(INSTALL) -m 755 $(BUILD)/varve $(DESTDIR)$(PREFIX)/bin/varve
	ln -sf ../bin/varve $(DESTDIR)$(PREFIX)/sbin/mount.fuse.varve
	$(Q)for page in $(wildcard packaging/man/*.[1-8]); do \
		$(INSTALL) -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; \
	done
	$(Q)if [ -f packaging/completion/varve.bash ]; then \
		$(INSTALL) -D -m 644 packaging/completion/varve.bash \
			$(DESTDIR)$(PREFIX)/share/bash-completion/completions/varve; \
	fi

clean:
	$(Q)rm -rf $(BUILD)

-include $(patsubst %.o,%.d,$(call objects,$(C_FILES)))

# ---- Measuring -------------------------------------------------------------

BENCH_PROGRAMS := $(patsubst tools/%.c,$(BUILD)/%,$(sort $(wildcard tools/bench/*.c)))

.PHONY: bench bench-peers bench-meta bench-scale bench-ops bench-kernel bench-rebuild

$(BENCH_PROGRAMS): $(BUILD)/%: $(BUILD)/obj/tools/%.o $(call archives,$(NEEDS_fs))
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LIBS_ALL)

# BENCH takes more words for bench/bench.py: make bench BENCH='--scale 0.1'
bench: setup-tests
	+$(Q)$(MAKE) all $(BENCH_PROGRAMS)
	$(Q)BUILD=$(BUILD) VARVE=$(abspath $(BUILD))/varve bench/bench.py --systems varve,varve-disk,varve-lost --latency 20 $(BENCH)

bench-peers:
	$(Q)packaging/setup --bench
	+$(Q)$(MAKE) all $(BENCH_PROGRAMS)
	$(Q)BUILD=$(BUILD) VARVE=$(abspath $(BUILD))/varve bench/bench.py --systems all --latency 20 $(BENCH)

bench-meta: setup
	+$(Q)$(MAKE) $(BENCH_PROGRAMS)
	$(Q)rm -rf $(BUILD)/bench/meta && mkdir -p $(BUILD)/bench/meta
	$(Q)$(BUILD)/bench/meta_catalog $(BUILD)/bench/meta/catalog
	$(Q)$(BUILD)/bench/meta_kv $(BUILD)/bench/meta/kv 30000
	$(Q)rm -rf $(BUILD)/bench/meta

# A million files, a directory of 100,000, 10,000 versions, a past of 100,000 files, a file of 20 GiB: takes some minutes and 45 GiB of disk.
# SCALE takes words for tools/bench/scale.c: make bench-scale SCALE='trees versions'
bench-scale: setup
	+$(Q)$(MAKE) all $(BUILD)/bench/scale
	$(Q)rm -rf $(BUILD)/bench/scale.run
	$(Q)$(BUILD)/bench/scale $(BUILD)/varve $(BUILD)/bench/scale.run $(SCALE) >$(BUILD)/bench/scale.json
	$(Q)rm -rf $(BUILD)/bench/scale.run

# Every call beside that of a filesystem that does nothing; and what each agreement with the kernel is worth.
bench-ops bench-kernel: setup
	+$(Q)$(MAKE) all $(BENCH_PROGRAMS)
	$(Q)BUILD=$(BUILD) bench/$(@:bench-%=%).sh $(BENCH)

# The restore drill: fills a bucket once (20 minutes), then rebuilds catalogs from it. FILES=1000 VERSIONS=3 for less.
bench-rebuild: setup-tests
	+$(Q)$(MAKE) all $(BUILD)/bench/drill
	$(Q)BUILD=$(BUILD) bench/rebuild.sh

-include $(patsubst $(BUILD)/%,$(BUILD)/obj/tools/%.d,$(BENCH_PROGRAMS))
