# Run by sh -eu in the staging directory: the archive becomes the file system "$1" of "$2" KiB.
mkdir root
tar -C root --numeric-owner --xattrs --xattrs-include='security.capability' -xpf root.tar
rm root.tar
mke2fs -q -F -t ext4 -m 1 -E root_owner=0:0,lazy_itable_init=0 -d root "$1" "$2k"
