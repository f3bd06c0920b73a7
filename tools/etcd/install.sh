#!/usr/bin/env bash
# Puts etcd's server from Debian's packages into the folder $1, without root and without installing it.
set -euo pipefail
target=$1
[ -x "$target/usr/bin/etcd" ] && exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "etcd: this is no Debian; skipped"; exit 0; }
mkdir -p "$target"
cd "$target"
apt-get -qq download etcd-server 2>/dev/null || { apt-get -qq update 2>/dev/null && apt-get -qq download etcd-server 2>/dev/null; } ||
    { echo "etcd: the package cannot be had; its tests are skipped"; exit 0; }
dpkg-deb -x etcd-server_*.deb .
rm -f etcd-server_*.deb
