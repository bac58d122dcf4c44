# Run inside the finished tree, as its root. Nothing but the lists of mmdebstrap is removed that
# a package owns.
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/ssh/ssh_host_*
sed -i /force-unsafe-io/d /etc/dpkg/dpkg.cfg.d/99mmdebstrap
# No screen, and no updates that nobody asked for.
for unit in getty.target.wants/getty@tty1.service timers.target.wants/apt-daily.timer \
    timers.target.wants/apt-daily-upgrade.timer; do
    rm -f "/etc/systemd/system/$unit"
done
rm -rf /var/cache/man /var/cache/debconf/*-old /var/lib/dpkg/*-old
