#!/bin/sh
# fetch.sh FOLDER: download the packages of the image, those that are not there. No root is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
for p in $(grep -v '^#' "$here/packages"); do
	set -- "$p"_*.deb
	[ -e "$1" ] || apt-get -q download "$p" # warns when it is root that downloads; harmless
done
