#!/bin/sh
# prepare.sh PROGRAM… - see that programs which the build and the tests call
# are installed. As root it installs what is missing with apt-get and says so;
# otherwise it says what to install.
set -eu

package() {
	case $1 in
	qemu-system-x86_64) echo qemu-system-x86 ;;
	e2fsck | debugfs) echo e2fsprogs ;;
	dbus-daemon) echo dbus ;;
	gnome-keyring-daemon) echo gnome-keyring ;;
	gcc) echo "gcc libc6-dev" ;;
	setpriv | nsenter | unshare) echo util-linux ;;
	ip) echo iproute2 ;;
	nginx) echo nginx-light ;;
	sshd) echo openssh-server ;;
	ssh-keygen) echo openssh-client ;;
	node) echo nodejs ;;
	*) echo "$1" ;;
	esac
}

# A python3-NAME is a module of the distribution's Python.
present() {
	case $1 in
	python3-*) /usr/bin/python3 -c "import ${1#python3-}" 2>/dev/null ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

# Some of them lie where only root looks.
PATH=$PATH:/usr/sbin:/sbin

if ! command -v go >/dev/null; then
	echo "Go is not installed; version $(sed -n 's/^go //p' go.mod) or later is needed: https://go.dev/dl/" >&2
	exit 1
fi

programs='' packages=''
for p in "$@"; do
	present "$p" && continue
	programs="$programs $p"
	packages="$packages $(package "$p")"
done
[ -n "$packages" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing:$programs" >&2
	echo "install with: sudo apt-get install --no-install-recommends$packages" >&2
	exit 1
fi
echo "installing with apt-get:$packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list
if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages; } >"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
