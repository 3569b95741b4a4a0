#!/usr/bin/env bash
# Makes the guestbook's images from Debian's packages and pushes them to a registry.
#
#   images/build.sh                        to localhost:5000, starting Debian's docker-registry there if none answers
#   REGISTRY=localhost:5001 images/build.sh
#   images/build.sh --stop                 end the registry that this script started
#
# Needs root (files keep their owners) and: apt-get install umoci skopeo docker-registry curl
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
registry=${REGISTRY:-localhost:5000}
state=${STATE:-/var/tmp/guestbook-registry-${registry##*:}}

if [ "${1:-}" = --stop ]; then
    [ -f "$state/pid" ] && kill "$(cat "$state/pid")" && rm -rf "$state"
    exit 0
fi
for tool in umoci skopeo curl dpkg-deb apt-get; do
    command -v "$tool" >/dev/null || { echo "build.sh: $tool is missing: apt-get install umoci skopeo docker-registry curl" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

answers() { curl -fsS -o /dev/null "http://$registry/v2/" 2>/dev/null; }

start_registry() {
    mkdir -p "$state/data"
    cat >"$state/config.yml" <<CONFIG
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: $state/data}
  delete: {enabled: true}
http:
  addr: 127.0.0.1:${registry##*:}
CONFIG
    setsid docker-registry serve "$state/config.yml" >"$state/log" 2>&1 </dev/null &
    echo $! >"$state/pid"
    for _ in $(seq 600); do
        if answers; then
            echo "started a registry at $registry (end it with $0 --stop)"
            return
        fi
        sleep 0.1
    done
    echo "build.sh: the registry at $registry does not answer; see $state/log" >&2
    exit 1
}

# root DIR PACKAGE...: the packages and all they depend on, unpacked into DIR.
root() {
    local dir=$1 packages
    shift
    mkdir -p "$dir" "$work/debs"
    packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$@" | grep '^[a-z0-9]' | grep -v ':i386' | sort -u |
        grep -v -x -E 'debconf.*|cdebconf|dpkg|perl.*|adduser|passwd|init-system-helpers|media-types|mime-support|lsb-base|sysvinit-utils|tzdata|libc-dev.*|install-info')
    # Names that only other packages provide have no file of their own.
    # shellcheck disable=SC2086 # a list of names
    packages=$(apt-cache policy $packages | awk '/^[a-z0-9]/ {name = $1; sub(":$", "", name)} /Candidate:/ && $2 != "(none)" {print name}')
    # shellcheck disable=SC2086
    (cd "$work/debs" && apt-get download -q $packages >/dev/null 2>"$work/apt.log") || { cat "$work/apt.log" >&2; exit 1; }
    for p in $packages; do
        for deb in "$work/debs/${p}"_*.deb; do
            [ -f "$deb" ] && dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$dir" --keep-directory-symlink \
                --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' --exclude='./usr/share/lintian'
        done
    done
    mkdir -p "$dir/etc" "$dir/tmp" "$dir/proc" "$dir/dev" "$dir/sys" "$dir/bin"
    chmod 1777 "$dir/tmp"
    printf 'root:x:0:0:root:/root:/bin/sh\nredis:x:999:999::/data:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$dir/etc/passwd"
    printf 'root:x:0:\nredis:x:999:\nnogroup:x:65534:\n' >"$dir/etc/group"
    printf 'hosts: files dns\n' >"$dir/etc/nsswitch.conf"
    for tool in $("$dir/bin/busybox" --list); do [ -e "$dir/bin/$tool" ] || ln -s busybox "$dir/bin/$tool"; done
}

# image NAME DIR UMOCI-CONFIG...: pushes DIR as an image.
image() {
    local name=$1 dir=$2 layout=$work/oci-$1
    shift 2
    umoci init --layout "$layout"
    umoci new --image "$layout:1"
    umoci insert --image "$layout:1" "$dir" /
    umoci config --image "$layout:1" --config.env PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin "$@"
    skopeo copy --quiet --dest-tls-verify=false "oci:$layout:1" "docker://$registry/$name:1"
    echo "pushed $registry/$name:1"
}

answers || start_registry

root "$work/store" redis-tools busybox-static
ln -sf redis-check-rdb "$work/store/usr/bin/redis-server" # one binary; its name says what it does
image guestbook-store "$work/store" --config.entrypoint /usr/bin/redis-server --config.user 999:999 --config.workingdir /

root "$work/web" python3-minimal libpython3-stdlib busybox-static
mkdir -p "$work/web/app" && cp "$here/web/app.py" "$work/web/app/"
image guestbook-web "$work/web" --config.entrypoint /usr/bin/python3 --config.cmd /app/app.py --config.user 65534:65534 \
    --config.exposedports 8080/tcp
