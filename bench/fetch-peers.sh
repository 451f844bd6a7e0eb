#!/bin/sh
# Fetches the programs that rouse is compared with from Debian, each with all that it needs, without
# installing them: out/peers/<name>/ is the root of a file tree. u-root's init is built from its module.
# Usage: fetch-peers.sh OUT
set -eu
mkdir -p "$1/peers"
out=$(cd "$1/peers" && pwd)
updated=

# fetch NAME PACKAGE...: as apt would for an empty system, which has nothing yet that they depend on.
fetch() {
	name=$1
	shift
	[ -e "$out/$name.done" ] && return
	[ -n "$updated" ] || { echo "fetch-peers: apt-get update" >&2; apt-get update -qq; updated=1; }
	echo "fetch-peers: $*" >&2
	rm -rf "$out/$name" "$out/deb"
	mkdir -p "$out/$name" "$out/deb/partial"
	: >"$out/status"
	apt-get -qq -y --download-only -o Dir::State::status="$out/status" -o Dir::Cache::archives="$out/deb" \
		-o APT::Install-Recommends=false -o Debug::NoLocking=1 install "$@" >/dev/null
	for deb in "$out"/deb/*.deb; do dpkg -x "$deb" "$out/$name"; done
	rm -rf "$out/deb" "$out/status"
	# What no init reads.
	rm -rf "$out/$name/usr/share" "$out/$name/var" "$out/$name/usr/lib/locale" "$out/$name"/usr/lib/*/perl* "$out/$name"/usr/lib/*/gconv
	touch "$out/$name.done"
}

fetch tini tini
fetch dumb-init dumb-init
fetch busybox busybox-static
fetch runit runit runit-init
fetch s6 s6
fetch systemd systemd systemd-sysv
fetch qemu-ga qemu-guest-agent
# systemctl freezes over the system bus alone.
fetch systemd-dbus systemd systemd-sysv dbus
[ -e "$out/u-root.done" ] || {
	# In a module of its own: what only u-root's init needs is no business of ours.
	version=$(go list -m -f '{{.Version}}' github.com/u-root/u-root)
	echo "fetch-peers: u-root $version" >&2
	rm -rf "$out/u-root"
	mkdir -p "$out/u-root/module"
	(
		cd "$out/u-root/module"
		go mod init peer 2>/dev/null
		go get "github.com/u-root/u-root/cmds/core/init@$version" 2>/dev/null
		CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../init github.com/u-root/u-root/cmds/core/init
	)
	rm -rf "$out/u-root/module"
	touch "$out/u-root.done"
}
