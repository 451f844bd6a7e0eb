#!/bin/sh
# Fetches Debian's cloud kernels for the VM tests and the demo, without installing them:
# out/kernels/<series>/{vmlinuz,config,modules/lib/modules/<release>}, with modules.dep made by depmod.
# The packages' exact version changes with every security update, so it is resolved through the meta package.
# Usage: fetch-kernels.sh OUT SERIES...   where SERIES is 6.1 or 6.12
set -eu
out=$1
shift
updated=
for series in "$@"; do
	case $series in
	6.1) meta=linux-image-cloud-amd64 ;;
	*) meta=linux-image-$series-cloud-amd64 ;;
	esac
	dir=$out/kernels/$series
	[ -e "$dir/release" ] && continue
	if [ -z "$updated" ]; then
		echo "fetch-kernels: apt-get update" >&2
		apt-get update -qq
		updated=1
	fi
	package=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: *\(linux-image-.*\)$/\1/p' | head -n 1)
	[ -n "$package" ] || { echo "fetch-kernels: $meta depends on no kernel image; is the Debian release still supported?" >&2; exit 1; }
	echo "fetch-kernels: $series is $package" >&2
	rm -rf "$dir.tmp"
	mkdir -p "$dir.tmp/deb"
	(cd "$dir.tmp/deb" && apt-get download -qq "$package")
	dpkg -x "$dir.tmp"/deb/*.deb "$dir.tmp/modules"
	rm -rf "$dir.tmp/deb"
	release=$(ls "$dir.tmp/modules/lib/modules")
	cp "$dir.tmp/modules/boot/vmlinuz-$release" "$dir.tmp/vmlinuz"
	cp "$dir.tmp/modules/boot/config-$release" "$dir.tmp/config"
	rm -rf "$dir.tmp/modules/boot" "$dir.tmp/modules/usr"
	depmod -b "$dir.tmp/modules" "$release"
	echo "$release" >"$dir.tmp/release"
	rm -rf "$dir"
	mv "$dir.tmp" "$dir"
done
