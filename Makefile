# A thin layer over the CMake presets (CMakePresets.json), which work by themselves too.
#   make test JOBS=4          at most four compilers at once
#   CMAKE_PREFIX_PATH=...     a libtorch or FAISS of your own, read when a build folder is first configured

SHELL := /bin/bash
.DEFAULT_GOAL := help

# As many compilers as cores, but no more than fit in the free memory at 1.5 GB each.
JOBS ?= $(shell awk -v cores="$$(nproc)" '/MemAvailable/ { n = int($$2 / 1572864); print n < 1 ? 1 : n < cores ? n : cores }' /proc/meminfo)

# configure(preset): only where it has not been done; ninja itself notices changed CMake files.
define configure
@[[ -f build/$(1)/build.ninja ]] || { mkdir -p build && \
  cmake --preset $(1) >build/$(1)-configure.log 2>&1 && grep '^-- \(libtorch\|FAISS\|  built\|BLAS\|nestrec\)' build/$(1)-configure.log; } || \
  { cat build/$(1)-configure.log; echo "make: configuring build/$(1) failed; the message above names the cure"; exit 1; } >&2
endef

# build(preset)
define build
$(call configure,$(1))
@cmake --build --preset $(1) -j $(JOBS) || \
  { echo "make: compiling build/$(1) failed at the first 'FAILED:' above; when a compiler was killed, memory ran out: make $(MAKECMDGOALS) JOBS=1" >&2; exit 1; }
endef

# test(preset, test preset)
define test
$(call build,$(1))
@ctest --preset $(2) -j $(JOBS) --output-on-failure
endef

.PHONY: help setup setup-lint build demo test test-fast test-deploy bench images package reference format tidy asan fuzz tsan clean distclean

help:  ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup:  ## install what is missing, build FAISS with AVX2 once
	@tools/setup.sh

build: setup  ## compile the program: build/release/cli/nestrec
	$(call build,release)

demo: build  ## make a shop, train on it, serve it, ask it (NESTREC_DATA=<folder>: your data)
	@tools/demo.sh

test: setup  ## build and run every test
	$(call test,release,release-all)

test-fast: setup  ## build and run the tests that are not slow
	$(call test,release,release)

bench: build  ## measure speed, print the tables
	@if [[ -x tools/bench.sh ]]; then tools/bench.sh; else echo "make: tools/bench.sh is not there" >&2; exit 1; fi

# BuildKit's caches make the second build of a changed file a matter of seconds. IMAGE_ARGS: more arguments of docker build.
IMAGE_ARGS ?=
images:  ## Docker images nestrec/serve, nestrec/train and nestrec/dev (docs/docker.md)
	@version="$$(sed -nE 's/^project\(nestrec VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)" && \
	created="$$(date -u -d "@$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}" +%Y-%m-%dT%H:%M:%SZ)" && \
	for target in dev train serve; do \
	  DOCKER_BUILDKIT=1 docker build $(IMAGE_ARGS) -f docker/Dockerfile --target $$target -t nestrec/$$target:latest -t nestrec/$$target:$$version \
	    --build-arg VERSION=$$version --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$created . || exit 1; done

package: build  ## two .deb files and a tarball in build/release, with what they consist of (docs/packages.md)
	@cd build/release && cpack -G 'DEB;TGZ' && ../../tools/sbom.sh cli/nestrec >nestrec.cdx.json && \
	../../tools/sbom.sh cli/nestrec-serve >nestrec-server.cdx.json && ls -l *.deb *.tar.gz *.cdx.json

test-deploy:  ## the chart on the cluster that kubectl points at: serve, kill, roll, evict, count failures
	@tests/deploy/cluster_proof.sh || { code=$$?; [[ $$code == 77 ]] || exit $$code; }

setup-lint:
	@tools/setup.sh lint

reference: setup  ## write the tables of flags, keys and metrics in docs/, from the program
	$(call build,release)
	@NESTREC_WRITE_DOCS=1 ctest --preset release-all -R '^(metrics_binary_test|operations_page_test)' >/dev/null && \
	  git --no-pager diff --stat -- docs

format: setup-lint  ## clang-format all C++ files in place
	@git ls-files --cached --others --exclude-standard '*.h' '*.cc' | xargs -r clang-format -i

tidy: setup-lint  ## compile under clang-tidy
	$(call build,tidy)

asan: setup  ## run the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(call test,asan,asan)

fuzz: setup-lint  ## run the fuzzers for a few seconds each (Clang)
	$(call test,fuzz,fuzz)

tsan: setup  ## run the tests under ThreadSanitizer
	$(call test,tsan,tsan)

clean:  ## remove the build folders; the FAISS build stays
	@rm -rf build

distclean: clean  ## remove the FAISS build as well
	@rm -rf "$${NESTREC_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/nestrec}"/faiss-*
