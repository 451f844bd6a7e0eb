#!/bin/sh
# Compiles every ASL and device tree source of this folder into the folder given (default: this one).
# Needs iasl (Debian: acpica-tools) and dtc (device-tree-compiler).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
for f in "$here"/*.asl; do
	name=$(basename "$f" .asl)
	# Oddities are on purpose: warnings off, and so is error 6035, by which iasl refuses a _HID that
	# is no registered vendor's, as hypervisors have them.
	iasl -ve -vr -vw 6035 -p "$out/$name" "$f" >"$out/$name.log" 2>&1 || {
		cat "$out/$name.log" >&2
		exit 1
	}
	rm -f "$out/$name.log"
done
for f in "$here"/*.dts; do
	[ -e "$f" ] || continue
	dtc -q -I dts -O dtb -o "$out/$(basename "$f" .dts).dtb" "$f"
done
