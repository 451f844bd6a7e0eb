#!/bin/sh
# Compiles every ASL and device tree source of this folder into the folder given (default: this one).
# Needs iasl (Debian: acpica-tools) and dtc (Debian: device-tree-compiler).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for f in "$here"/*.asl; do
	aml=$out/$(basename "$f" .asl).aml
	rm -f "$aml"
	# The oddities are on purpose, hypervisors' own _HIDs among them: -f makes AML of them all the
	# same. What is no ASL at all still gives none.
	iasl -f -ve -vr -p "${aml%.aml}" "$f" >"$log" 2>&1 || true
	[ -s "$aml" ] || { cat "$log" >&2; exit 1; }
done
for f in "$here"/*.dts; do
	[ -e "$f" ] || continue
	dtc -q -I dts -O dtb -o "$out/$(basename "$f" .dts).dtb" "$f"
done
