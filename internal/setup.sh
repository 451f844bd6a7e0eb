#!/bin/sh
# Installs with apt what this machine lacks, and says so. Works when run again; needs root only if
# something is missing.
set -eu

# command:package, for what is called by name.
need='qemu-system-x86_64:qemu-system-x86 depmod:kmod gcc:gcc git:git cpio:cpio nft:nftables ip:iproute2
conntrack:conntrack iasl:acpica-tools dtc:device-tree-compiler python3:python3 iptables-restore:iptables mke2fs:e2fsprogs
mksquashfs:squashfs-tools curl:curl ss:iproute2 dnsmasq:dnsmasq-base dbus-daemon:dbus-daemon
xz:xz-utils libvirtd:libvirt-daemon virsh:libvirt-clients'
missing=
for pair in $need; do
	PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so >/dev/null 2>&1 || missing="$missing libvirt-daemon-driver-qemu"
[ -e /usr/share/seabios/bios-256k.bin ] || missing="$missing seabios"
if [ -n "$missing" ]; then
	echo "setup: installing$missing" >&2
	if [ "$(id -u)" != 0 ]; then
		echo "setup: apt needs root; run as root, or install them yourself" >&2
		exit 1
	fi
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

if ! command -v go >/dev/null 2>&1; then
	echo "setup: no Go; install Go 1.26 or newer from https://go.dev/dl and put its bin folder into PATH" >&2
	exit 1
fi
