#!/bin/sh
# Installs what virtual machines and their images are made with, where it is missing and we may.
set -eu
missing=""
for pair in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap mke2fs:e2fsprogs lz4:lz4 zstd:zstd; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "missing; as root: apt-get install$missing" >&2
    exit 1
fi
apt-get update -qq
# shellcheck disable=SC2086  (a list of words)
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
