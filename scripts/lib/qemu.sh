# Which QEMU scripts/keyed-host uses; source it after common.sh.

# Sets QEMU, the command's words (empty if there is none), and QEMU_MAJOR, its version.
find_qemu() {
    local own=$OUT/qemu/usr
    QEMU=() QEMU_MAJOR=0
    if [ -x "$own/bin/qemu-system-x86_64" ]; then
        QEMU=("$own/bin/qemu-system-x86_64" -L "$own/share/qemu" -L "$own/share/seabios")
    elif command -v qemu-system-x86_64 >/dev/null; then
        QEMU=(qemu-system-x86_64)
    else
        return 0
    fi
    QEMU_MAJOR=$("${QEMU[@]}" --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p')
    QEMU_MAJOR=${QEMU_MAJOR:-0}
}
