# SPDX-License-Identifier: MIT
# bash completion for deltaprof-perf; shellcheck shell=bash

_deltaprof_perf()
{
	local current=$2 previous=$3
	local options='-p --pid -i --interval -d --duration -e --profiles -o --output
		--heap-rate --block-rate --go-heap-rate --go-block-rate --go-mutex-fraction --stacks
		--sampler --max-overhead -q --quiet -v --verbose -h --help --version'

	COMPREPLY=()
	case $previous in
	-p | --pid)
		mapfile -t COMPREPLY < <(compgen -W "$(cd /proc && echo [1-9]*)" -- "$current")
		;;
	-i | --interval)
		mapfile -t COMPREPLY < <(compgen -W '1s 10s 1m 10m 1h' -- "$current")
		;;
	-d | --duration)
		mapfile -t COMPREPLY < <(compgen -W '10s 1m 10m 1h' -- "$current")
		;;
	-e | --profiles)
		mapfile -t COMPREPLY < <(compgen -W 'heap mutex block cheap heap,mutex,block mutex,block' -- "$current")
		;;
	-o | --output)
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		;;
	--heap-rate)
		mapfile -t COMPREPLY < <(compgen -W '1 4KiB 64KiB 512KiB 1MiB' -- "$current")
		;;
	--block-rate)
		mapfile -t COMPREPLY < <(compgen -W '1ns 10us 1ms' -- "$current")
		;;
	--go-heap-rate)
		mapfile -t COMPREPLY < <(compgen -W '64KiB 512KiB' -- "$current")
		;;
	--go-block-rate)
		mapfile -t COMPREPLY < <(compgen -W '1ns 10us 1ms' -- "$current")
		;;
	--go-mutex-fraction)
		mapfile -t COMPREPLY < <(compgen -W '1 10 100' -- "$current")
		;;
	--stacks)
		mapfile -t COMPREPLY < <(compgen -W 'auto fp dwarf' -- "$current")
		;;
	--sampler)
		mapfile -t COMPREPLY < <(compgen -W 'auto kernel direct' -- "$current")
		;;
	--max-overhead)
		mapfile -t COMPREPLY < <(compgen -W '100' -- "$current")
		;;
	*)
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
		;;
	esac
}

complete -o filenames -F _deltaprof_perf deltaprof-perf
