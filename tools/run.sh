#!/bin/sh
# `make run`: a disk with a real file system, booted from by the Debian 6.1 cloud configuration on Azure Gen2.
set -eu
bin=$1
config=build/debian12-6.1.192-cloud-amd64.config
PATH=$PATH:${SBIN-/usr/sbin:/sbin}
mkdir -p build
gzip -dc "tests/data/configs/${config#build/}.gz" >"$config"
if ! mkfs=$(command -v mkfs.ext4 || command -v mkfs.ext2 || command -v mkfs.vfat); then
    echo "make run: no mkfs.ext4, mkfs.ext2 or mkfs.vfat (e2fsprogs, dosfstools) here, so the disk is a blank one" >&2
    exec "$bin/hvkernel" boot --config "$config"
fi
truncate -s 0 build/disk.img
truncate -s 64M build/disk.img
case $mkfs in
*vfat) "$mkfs" build/disk.img >/dev/null ;;
*) "$mkfs" -q -F build/disk.img ;;
esac
exec "$bin/hvkernel" boot --config "$config" --disk build/disk.img
