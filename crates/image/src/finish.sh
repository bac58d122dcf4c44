# Run inside the finished tree, as its root. Nothing but the lists of mmdebstrap is removed that
# a package owns.
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/ssh/ssh_host_*
sed -i /force-unsafe-io/d /etc/dpkg/dpkg.cfg.d/99mmdebstrap
# No screen, no updates that nobody asked for, no snapshots to check.
cd /etc/systemd/system
for unit in getty@tty1.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    e2scrub_reap.service; do
    rm -f ./*.wants/"$unit"
done
# All is up to date for this /usr: the first start need not see to it, systemd-update-done(8).
touch -r /usr /etc/.updated /var/.updated
rm -rf /var/cache/man /var/cache/debconf/*-old /var/lib/dpkg/*-old
