#!/bin/sh
# build.sh OUTPUT --kernel KERNEL [--modules FOLDER] [...]: make an image of Debian's nginx.
#
# What follows OUTPUT goes to rouse build as it is. ROUSE names that program (out/rouse of this repository if empty),
# WORK a folder for packages and the root file system (a temporary one if empty).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rouse=${ROUSE:-$here/../../out/rouse}
[ $# -ge 3 ] || { echo "usage: $0 OUTPUT --kernel KERNEL [--modules FOLDER] [more for rouse build]" >&2; exit 2; }
output=$1
shift
if [ -z "${WORK:-}" ]; then
	WORK=$(mktemp -d)
	trap 'rm -rf "$WORK"' EXIT
fi
mkdir -p "$WORK"
WORK=$(cd "$WORK" && pwd)

sh "$here/fetch.sh" "$WORK/debs"
root=$WORK/root
rm -rf "$root"
mkdir -p "$root"
for deb in "$WORK"/debs/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --no-same-owner
done
rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/lintian" "$root/usr/share/initramfs-tools"

# Accounts that a package's script would have made, and the names under which busybox is a shell and tools.
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
for name in sh cat head kill mkdir mv sleep; do
	ln -s busybox "$root/bin/$name"
done

install -m 644 "$here/nginx.conf" "$root/etc/nginx/nginx.conf"
install -D -m 755 "$here/renew-secrets" "$root/usr/local/sbin/renew-secrets"
# A certificate for a try. Its key is part of the image and of all clones, as that of one service is meant to be.
mkdir -p "$root/etc/nginx/tls"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
	-keyout "$root/etc/nginx/tls/key.pem" -out "$root/etc/nginx/tls/cert.pem" 2>/dev/null
chmod 600 "$root/etc/nginx/tls/key.pem"

"$rouse" build "dir:$root" -c "$here/rouse.toml" -o "$output" "$@"
