# Run by sh -eu in the staging directory: the archive becomes the file system "$1" of "$2" KiB;
# further words are tar's. Devices cannot be made in a user namespace, and the guest's kernel makes
# its own.
disk=$1 size=$2
shift 2
mkdir root
tar -C root --numeric-owner --exclude='./dev/*' -p "$@" -xf root.tar
rm root.tar
mke2fs -q -F -t ext4 -m 1 -E root_owner=0:0,lazy_itable_init=0 -d root "$disk" "${size}k"
