# Run before anything is fetched, by the host's shell with the guest's tree as $1: a package that
# does not exist is named at once. mmdebstrap does not read the lists a second time.
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" TMPDIR="$1/tmp"
apt-get -qq --error-on=any update
