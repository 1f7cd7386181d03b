# SPDX-License-Identifier: MIT
# A thin front of CMake: `make demo` and `make test` install what is missing (Debian 12, as root)
# and then do what their names say. Everything else is in CMakePresets.json.

export DP_REQUIRE_PERF ?= 1
WERROR := $(if $(CI),ON,OFF)

.PHONY: all demo test bench fmt clean

all:
	cmake --preset release
	cmake --build --preset release

demo:
	.ci/setup build demo
	cmake --preset release
	cmake --build --preset release --target deltaprof-perf demo
	tests/demo.sh build/release

test:
	.ci/setup build test bench
	cmake --preset dev -DDP_WERROR=$(WERROR)
	cmake --build --preset dev
	cmake --preset asan -DDP_WERROR=$(WERROR)
	cmake --build --preset asan
	cmake --preset tsan -DDP_WERROR=$(WERROR)
	cmake --build --preset tsan
	tests/run_presets.py dev asan tsan

bench:
	.ci/setup build bench
	cmake --preset release
	cmake --build --preset release --target bench

fmt:
	git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
