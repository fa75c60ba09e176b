#!/bin/sh
# `make run`: a disk with a real file system, booted from by the Debian 6.1 cloud configuration on Azure Gen2.
set -eu
bin=$1
config=build/debian12-6.1.192-cloud-amd64.config
PATH=$PATH:/usr/sbin:/sbin
mkfs=$(command -v mkfs.ext4 || command -v mkfs.ext2 || command -v mkfs.vfat) || {
    echo "make run: no mkfs.ext4, mkfs.ext2 or mkfs.vfat here: install e2fsprogs or dosfstools" >&2
    exit 1
}
mkdir -p build
gzip -dc "tests/data/configs/${config#build/}.gz" >"$config"
truncate -s 0 build/disk.img
truncate -s 64M build/disk.img
case $mkfs in
*vfat) "$mkfs" build/disk.img >/dev/null ;;
*) "$mkfs" -q -F build/disk.img ;;
esac
exec "$bin/hvkernel" boot --config "$config" --disk build/disk.img
