# Debian packages without installing them; source it after common.sh.
#
# A private apt state under $OUT/apt names one Debian suite (and its security
# and backports companions), so the kernels and guest files are the same on
# every host, the host's own configuration stays as it is, and root is not
# needed. Signatures are checked with Debian's archive keyring.
#
# Environment:
#   SUITE           Debian release of kernels and guest files (bookworm)
#   DEBIAN_MIRROR   address of a Debian mirror; default: the one that the
#                   host's own apt configuration uses

SUITE=${SUITE:-bookworm}
APT_DIR=$OUT/apt
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Prints the repository addresses that the host's apt uses.
host_repositories() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sort -u
}

debian_mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        printf '%s\n' "${DEBIAN_MIRROR%/}"
        return
    fi
    host_repositories | sed -n 's,/*$,,; /\/debian$/p' | head -n 1
}

security_mirror() {
    [ -n "${DEBIAN_MIRROR:-}" ] || host_repositories | sed -n 's,/*$,,; /debian-security$/p' | head -n 1
}

write_apt_configuration() {
    local mirror security
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || die "this host's apt has no Debian repository; set DEBIAN_MIRROR=ADDRESS" \
        "(…/debian) to say where Debian packages come from"
    [ -r "$KEYRING" ] || apt_install debian-archive-keyring
    mkdir -p "$APT_DIR"/{state/lists/partial,cache/archives/partial,parts}
    touch "$APT_DIR/status"
    {
        echo "deb [signed-by=$KEYRING arch=amd64] $mirror $SUITE main"
        echo "deb [signed-by=$KEYRING arch=amd64] $mirror $SUITE-backports main"
        security=$(security_mirror)
        [ -z "$security" ] ||
            echo "deb [signed-by=$KEYRING arch=amd64] $security $SUITE-security main"
    } >"$APT_DIR/sources.list"
    cat >"$APT_DIR/apt.conf" <<END
Dir::Etc::sourcelist "$APT_DIR/sources.list";
Dir::Etc::sourceparts "$APT_DIR/parts";
Dir::Etc::preferences "$APT_DIR/preferences";
Dir::Etc::preferencesparts "$APT_DIR/parts";
Dir::State "$APT_DIR/state";
Dir::State::status "$APT_DIR/status";
Dir::Cache "$APT_DIR/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Default-Release "$SUITE";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
END
}

apt_private() {
    local tool=$1
    shift
    "$tool" -q -c "$APT_DIR/apt.conf" "$@"
}

# Fetches the package lists once a day at most.
debian_update() {
    command -v apt-get >/dev/null ||
        die "apt-get and dpkg-deb are needed to fetch Debian packages"
    if [ -f "$APT_DIR/updated" ] && [ -n "$(find "$APT_DIR/updated" -mmin -1440)" ]; then
        return
    fi
    write_apt_configuration
    say "reading Debian $SUITE package lists into $APT_DIR"
    apt_private apt-get update >"$APT_DIR/update.log" 2>&1 || {
        tail -n 20 "$APT_DIR/update.log" >&2
        die "could not read the package lists (see above)"
    }
    touch "$APT_DIR/updated"
}

# kernel_package META[/SUITE]: the package that a kernel meta package stands for.
kernel_package() {
    local release=${1#*/}
    [ "$release" != "$1" ] || release=$SUITE
    apt_private apt-cache -t "$release" depends --important "${1%%/*}" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# The downloaded file of a package, or nothing.
deb_file() { find "$APT_DIR/debs" -name "${1%%/*}_*.deb" | head -n 1; }

# fetch_deb DIRECTORY PACKAGE[/SUITE]…: downloads and unpacks packages there.
fetch_deb() {
    local target=$1 package missing=()
    shift
    mkdir -p "$target" "$APT_DIR/debs"
    for package in "$@"; do
        [ -n "$(deb_file "$package")" ] || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        (cd "$APT_DIR/debs" && apt_private apt-get download "${missing[@]}" >"$APT_DIR/download.log" 2>&1) || {
            tail -n 20 "$APT_DIR/download.log" >&2
            die "could not download ${missing[*]}"
        }
    fi
    for package in "$@"; do
        dpkg-deb -x "$(deb_file "$package")" "$target"
    done
}
