#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Usage: go_toolchains.sh DIRECTORY
#
# Brings the Go toolchains that the live tests build their targets with into DIRECTORY/1.XX, from the
# Debian suites that have them: nothing is installed, and the system's own package lists stay as they are.
# apt does the work, with its own lists, cache and sources below DIRECTORY, on the mirror that the system
# uses. Every archive is verified: the system's keyring vouches for the newest debian-archive-keyring of
# the system's own release, and that one for the newer suites.
#
# Does nothing, and touches no network, when they are there. Several may run at once.
set -euo pipefail

release=bookworm
versions=(
	1.21:bookworm-backports 1.22:bookworm-backports 1.23:bookworm-backports
	1.24:trixie
	1.25:trixie-backports 1.26:trixie-backports 1.27:trixie-backports
)

# die SENTENCE
die() {
	echo "go_toolchains: $1" >&2
	exit 1
}

if [ $# -ne 1 ]; then
	die "one argument is wanted: the directory for the toolchains"
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
stamp=$dir/stamp
wanted="${versions[*]}"

is_complete() {
	[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]
}

is_complete && exit 0
exec 9>"$dir/lock"
flock 9
is_complete && exit 0

command -v apt-get >/dev/null || die "this is no Debian, and Go ${versions[*]} come from its suites"
log=$dir/log
: >"$log"

# The system's apt knows which mirror is meant, whatever form its sources have.
mirror=$(apt-get indextargets --format "\$(RELEASE) \$(COMPONENT) \$(REPO_URI)" 'Identifier: Packages' |
	awk -v release=$release '$1 == release && $2 == "main" { print $3; exit }')
mirror=${mirror:-http://deb.debian.org/debian/}

apt=$dir/apt
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$apt"/{lists/partial,archives/partial,parts}
: >"$apt/status"
cat >"$apt/conf" <<END
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/parts";
Acquire::Retries "3";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END
if [ "$(id -u)" -eq 0 ]; then
	# The user that apt downloads as may not be able to reach the directory.
	echo 'APT::Sandbox::User "root";' >>"$apt/conf"
fi

# own_apt ARGUMENT...: apt-get with the configuration above; what it says goes to the log.
own_apt() {
	(cd "$apt/archives" && apt-get -q -c "$apt/conf" "$@") >>"$log" 2>&1 9>&-
}

# use_suites SUITE...: these, verified with $keyring, are the sources from now on.
use_suites() {
	local suite
	for suite in "$@"; do
		echo "deb [signed-by=$keyring] $mirror $suite main"
	done >"$apt/sources.list"
	own_apt -o APT::Update::Error-Mode=any update ||
		die "the package lists of $* could not be had from $mirror (see $log)"
}

# fetch PACKAGE SUITE TREE: downloads a package of that suite and unpacks it into TREE.
fetch() {
	rm -f "$apt"/archives/*.deb
	own_apt download "$1/$2" || die "$1 could not be had from $2 at $mirror (see $log)"
	dpkg-deb -x "$apt"/archives/*.deb "$3" >>"$log" 2>&1 || die "$1 could not be unpacked (see $log)"
	rm -f "$apt"/archives/*.deb
}

rm -rf "$apt/keyring"
use_suites $release
fetch debian-archive-keyring $release "$apt/keyring"
keyring=$apt$(readlink -m /keyring/$keyring)
# Newer packages keep it under another name, with a link.
[ -e "$keyring" ] || keyring=${keyring%.gpg}.pgp

mapfile -t suites < <(printf '%s\n' "${versions[@]#*:}" | sort -u)
use_suites "${suites[@]}"
for entry in "${versions[@]}"; do
	version=${entry%%:*}
	suite=${entry#*:}
	if [ "$(cat "$dir/$version/complete" 2>/dev/null)" = "$suite" ]; then
		continue
	fi
	rm -rf "${dir:?}/$version" "$dir/new"
	fetch "golang-$version-go" "$suite" "$dir/new"
	fetch "golang-$version-src" "$suite" "$dir/new"
	GOTOOLCHAIN=local "$dir/new/usr/lib/go-$version/bin/go" version >>"$log" 2>&1 ||
		die "Go $version does not run (see $log)"
	echo "$suite" >"$dir/new/complete"
	mv "$dir/new" "$dir/$version"
done
rm -rf "$apt"
echo "$wanted" >"$stamp"
