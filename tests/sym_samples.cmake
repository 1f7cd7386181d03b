# SPDX-License-Identifier: MIT
#
# Files whose symbols are looked up, built with exact options whatever builds the rest: they are data.
# Debian: gcc g++ binutils, and clang where there is one.

set(dp_sym_dir ${CMAKE_CURRENT_BINARY_DIR}/sym)
set(dp_sym_source ${CMAKE_CURRENT_SOURCE_DIR}/targets)
file(MAKE_DIRECTORY ${dp_sym_dir})
add_custom_target(dp_sym_samples)
find_program(DP_SYM_GCC gcc REQUIRED)
find_program(DP_SYM_GXX g++ REQUIRED)
find_program(DP_SYM_CLANG clang)
find_program(DP_SYM_CLANGXX clang++)
find_program(DP_SYM_DWZ dwz)
find_program(DP_SYM_LLVM_ADDR2LINE NAMES llvm-addr2line llvm-addr2line-14)
if(NOT DP_SYM_LLVM_ADDR2LINE)
	set(DP_SYM_LLVM_ADDR2LINE "")
endif()

# dp_sym_step(NAME DEPENDS file... COMMAND command...): makes ${dp_sym_dir}/NAME.
function(dp_sym_step name)
	cmake_parse_arguments(arg "" "" "DEPENDS;COMMAND" ${ARGN})
	add_custom_command(OUTPUT ${dp_sym_dir}/${name} COMMAND ${arg_COMMAND}
		DEPENDS ${arg_DEPENDS} WORKING_DIRECTORY ${dp_sym_dir} VERBATIM)
	add_custom_target(dp_sym_${name} DEPENDS ${dp_sym_dir}/${name})
	add_dependencies(dp_sym_samples dp_sym_${name})
endfunction()

# dp_sym_compile(NAME SOURCE COMPILER option...)
function(dp_sym_compile name source compiler)
	dp_sym_step(${name}
		DEPENDS ${dp_sym_source}/${source} ${dp_sym_source}/sym_calls.h
		COMMAND ${compiler} ${ARGN} -o ${name} ${dp_sym_source}/${source})
endfunction()

set(dp_sym_c -std=gnu17 -O2)
dp_sym_compile(calls-dwarf4 sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -gdwarf-4 -fPIE -pie -rdynamic)
dp_sym_compile(calls-dwarf5 sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -gdwarf-5 -fPIE -pie -rdynamic)
dp_sym_compile(calls-nopie sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -fno-pie -no-pie)
dp_sym_compile(calls-static sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -fno-pie -static)
dp_sym_compile(calls-static-pie sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -fPIE -static-pie)
dp_sym_compile(calls-o0 sym_calls.c ${DP_SYM_GCC} -std=gnu17 -O0 -g -fPIE -pie)
dp_sym_compile(calls-lto sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -flto -fPIE -pie)
dp_sym_compile(calls-zlib sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -gz=zlib -fPIE -pie)
dp_sym_compile(calls-split sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -gdwarf-5 -gsplit-dwarf -fPIE -pie
	-rdynamic)
dp_sym_compile(calls-sections sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -ffunction-sections
	-Wl,--gc-sections -fPIE -pie)
dp_sym_compile(calls-discarded sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -ffunction-sections
	-Wl,--gc-sections -fPIE -pie -DSYM_UNUSED)
dp_sym_compile(calls-no-build-id sym_calls.c ${DP_SYM_GCC} ${dp_sym_c} -g -fPIE -pie
	-Wl,--build-id=none)
dp_sym_compile(cxx-dwarf4 sym_cxx.cc ${DP_SYM_GXX} -O2 -gdwarf-4 -fPIE -pie)
dp_sym_compile(cxx-dwarf5 sym_cxx.cc ${DP_SYM_GXX} -O2 -gdwarf-5 -fPIE -pie)
dp_sym_compile(library.so sym_library.c ${DP_SYM_GCC} ${dp_sym_c} -g -fPIC -shared)
file(WRITE ${dp_sym_dir}/versions.map "SYM_1 {}; SYM_2 {} SYM_1;\n")
dp_sym_compile(versioned.so sym_library.c ${DP_SYM_GCC} ${dp_sym_c} -g -fPIC -shared -DSYM_VERSIONS
	-Wl,--version-script=versions.map)
dp_sym_compile(tiny.so sym_library.c ${DP_SYM_GCC} ${dp_sym_c} -g -fPIC -shared -nostdlib
	-Wl,-z,noseparate-code)
dp_sym_compile(host sym_host.c ${DP_SYM_GCC} ${dp_sym_c} -g -fPIE -pie -pthread)
if(DP_SYM_CLANG)
	dp_sym_compile(calls-clang sym_calls.c ${DP_SYM_CLANG} ${dp_sym_c} -gdwarf-5 -fPIE -pie)
endif()
if(DP_SYM_CLANGXX)
	dp_sym_compile(cxx-clang sym_cxx.cc ${DP_SYM_CLANGXX} -O2 -gdwarf-5 -fPIE -pie)
endif()

# What addr2line is compared with on a large scale.
set(dp_sym_templates -std=c++17 -O2 -fPIE -pie -rdynamic)
dp_sym_compile(templates-dwarf4 sym_templates.cc ${DP_SYM_GXX} ${dp_sym_templates} -gdwarf-4)
dp_sym_compile(templates-dwarf5 sym_templates.cc ${DP_SYM_GXX} ${dp_sym_templates} -gdwarf-5)
dp_sym_compile(templates-other sym_templates.cc ${DP_SYM_GXX} ${dp_sym_templates} -gdwarf-5
	-DSYM_UNIT=1)
dp_sym_compile(templates-split sym_templates.cc ${DP_SYM_GXX} ${dp_sym_templates} -gdwarf-5
	-gsplit-dwarf)
dp_sym_compile(templates-split4 sym_templates.cc ${DP_SYM_GXX} ${dp_sym_templates} -gdwarf-4
	-gsplit-dwarf)
dp_sym_compile(templates-zlib sym_templates.cc ${DP_SYM_GXX} ${dp_sym_templates} -gdwarf-5 -gz=zlib)
if(DP_SYM_CLANGXX)
	dp_sym_compile(templates-clang sym_templates.cc ${DP_SYM_CLANGXX} ${dp_sym_templates} -gdwarf-5)
endif()

# dp_sym_derive(NAME FROM sample... COMMAND command...): makes NAME from other samples.
function(dp_sym_derive name)
	cmake_parse_arguments(arg "" "" "FROM;COMMAND" ${ARGN})
	list(TRANSFORM arg_FROM PREPEND dp_sym_ OUTPUT_VARIABLE targets)
	list(TRANSFORM arg_FROM PREPEND ${dp_sym_dir}/ OUTPUT_VARIABLE files)
	dp_sym_step(${name} DEPENDS ${targets} ${files} COMMAND ${arg_COMMAND})
endfunction()

dp_sym_derive(templates-dynsym FROM templates-dwarf5
	COMMAND strip -o templates-dynsym templates-dwarf5)
dp_sym_derive(templates-symtab FROM templates-dwarf5
	COMMAND strip -g -o templates-symtab templates-dwarf5)
dp_sym_derive(templates.debug FROM templates-dwarf5
	COMMAND objcopy --only-keep-debug templates-dwarf5 templates.debug)
dp_sym_derive(templates-linked FROM templates-dwarf5 templates.debug
	COMMAND objcopy --strip-all --add-gnu-debuglink=templates.debug templates-dwarf5
		templates-linked)
dp_sym_derive(templates-mini FROM templates-dwarf5
	COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mini_debuginfo.sh templates-dwarf5 templates-mini)
if(DP_SYM_DWZ)
	dp_sym_derive(templates-dwz FROM templates-dwarf5 templates-other
		COMMAND sh -ec "cp $1 $0.1 && cp $2 $0.2 && ${DP_SYM_DWZ} -m $0.common $0.1 $0.2 && mv $0.1 $0"
			templates-dwz templates-dwarf5 templates-other)
endif()

# Without any names but .dynsym; with a symbol table only; with the debug information split off.
dp_sym_step(calls-stripped DEPENDS dp_sym_calls-dwarf5 ${dp_sym_dir}/calls-dwarf5
	COMMAND strip -o calls-stripped calls-dwarf5)
dp_sym_step(calls-symtab DEPENDS dp_sym_calls-dwarf5 ${dp_sym_dir}/calls-dwarf5
	COMMAND strip -g -o calls-symtab calls-dwarf5)
dp_sym_step(versioned-bare.so DEPENDS dp_sym_versioned.so ${dp_sym_dir}/versioned.so
	COMMAND strip -g -o versioned-bare.so versioned.so)
# Strings that do not end, in sections that are compressed: what lies behind them is not the file's.
dp_sym_step(calls-endless DEPENDS dp_sym_calls-dwarf5 ${dp_sym_dir}/calls-dwarf5
	COMMAND sh -c "cp calls-dwarf5 $1 && objcopy --dump-section .debug_str=$1.str --dump-section .debug_line_str=$1.line $1 $1.copy && tr '\\0' x <$1.str >$1.str.x && tr '\\0' x <$1.line >$1.line.x && objcopy --update-section .debug_str=$1.str.x --update-section .debug_line_str=$1.line.x $1 && objcopy --compress-debug-sections=zlib $1" sh calls-endless)
foreach(from calls-dwarf5 calls-no-build-id)
	dp_sym_step(${from}.debug DEPENDS dp_sym_${from} ${dp_sym_dir}/${from}
		COMMAND objcopy --only-keep-debug ${from} ${from}.debug)
	dp_sym_step(${from}-linked DEPENDS dp_sym_${from}.debug ${dp_sym_dir}/${from}.debug
		COMMAND objcopy --strip-all --add-gnu-debuglink=${from}.debug ${from} ${from}-linked)
endforeach()

add_library(dp_sym_oracle STATIC sym_oracle.c)
target_link_libraries(dp_sym_oracle PRIVATE dp_flags)
target_compile_definitions(dp_sym_oracle
	PRIVATE DP_SYM_SAMPLES="${dp_sym_dir}"
	INTERFACE DP_SYM_SOURCES="${dp_sym_source}" DP_SYM_LLVM_ADDR2LINE="${DP_SYM_LLVM_ADDR2LINE}")

# Programs of Go's own compiler and linker. Debian: golang-go.
find_program(DP_GO go)
if(DP_GO)
	set(dp_go env GO111MODULE=off GOFLAGS= GOCACHE=${dp_sym_dir}/go-cache CGO_ENABLED=0 ${DP_GO} build)
	dp_sym_step(go-plain DEPENDS ${dp_sym_source}/go_plain.go
		COMMAND ${dp_go} -o go-plain ${dp_sym_source}/go_plain.go)
	dp_sym_step(go-pie DEPENDS dp_sym_go-plain ${dp_sym_source}/go_plain.go
		COMMAND ${dp_go} -buildmode=pie -ldflags=-s -o go-pie ${dp_sym_source}/go_plain.go)
	# As a packer leaves them: the sections are there, and nothing says where.
	foreach(name plain pie)
		dp_sym_step(go-${name}-sectionless DEPENDS dp_sym_go-${name} ${dp_sym_dir}/go-${name}
			COMMAND sh -c "cp go-${name} $1 && zero=\"dd if=/dev/zero of=$1 bs=1 conv=notrunc status=none\" && $zero seek=40 count=8 && $zero seek=60 count=4" sh go-${name}-sectionless)
	endforeach()
endif()
