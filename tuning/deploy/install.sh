#!/bin/sh
# Installs lull on a machine with systemd: the program, a unit, kernel settings, and,
# where there is update-grub, a larger TCP hash table from the next boot on.
# uninstall.sh removes them again. With DESTDIR it writes to that tree instead,
# for an image, and changes nothing else.
set -eu

usage() {
	echo "usage: [DESTDIR=DIR] $0 server|generator [PROGRAM]" >&2
	exit 64
}
case $# in
1 | 2) ;;
*) usage ;;
esac
case $1 in
server) unit=lull files=90-lull-server variable=LULL_SERVE ;;
generator) unit=lull-load files=90-lull-load variable=LULL_LOAD ;;
*) usage ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
program=${2:-$here/../../bin/lull}
root=${DESTDIR:-}

if ! [ -f "$program" ]; then
	echo "$program: no such program; build it with make, or name another" >&2
	exit 1
fi
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
	echo "this needs root" >&2
	exit 1
fi

# raising copies sysctl.d lines, but for values of which the machine has more.
# More is not better for tcp_tw_reuse: 2 is for loopback alone.
raising() {
	while IFS= read -r line; do
		case $line in
		'' | '#'*) ;;
		net.ipv4.tcp_tw_reuse*) ;;
		*)
			key=${line%% =*} want=${line##*= }
			file=$root/proc/sys/$(echo "$key" | tr . /)
			if [ -r "$file" ] && [ "$(cat "$file")" -gt "$want" ]; then
				echo "$key is $(cat "$file") already" >&2
				line="# $line"
			fi
			;;
		esac
		printf '%s\n' "$line"
	done
}

# put writes a file as a whole or not at all.
put() { # MODE PATH, from standard input
	mkdir -p "$root$(dirname "$2")"
	cat >"$root$2.new"
	chmod "$1" "$root$2.new"
	mv "$root$2.new" "$root$2"
}

put 755 /usr/local/bin/lull <"$program"
put 644 "/etc/systemd/system/$unit.service" <"$here/systemd/$unit.service"
raising <"$here/sysctl.d/$files.conf" | put 644 "/etc/sysctl.d/$files.conf"
if [ -e "$root/usr/sbin/update-grub" ]; then
	put 644 "/etc/default/grub.d/$files.cfg" <"$here/grub.d/$files.cfg"
fi
if ! [ -e "$root/etc/default/$unit" ]; then
	{
		echo "# Flags of $unit.service, for example those that it has by default:"
		sed -n "s/^Environment=\"\($variable=\)\(.*\)\"\$/# \1\"\2\"/p" "$here/systemd/$unit.service"
	} | put 644 "/etc/default/$unit"
fi

[ -z "$root" ] || exit 0
sysctl -q -p "/etc/sysctl.d/$files.conf"
if [ -e /usr/sbin/update-grub ]; then
	echo "For a larger TCP hash table, run update-grub and restart the machine."
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
case $unit in
lull) echo "Now: lull doctor --role server; systemctl enable --now lull" ;;
lull-load) echo "Now: lull doctor --role loadgen; systemctl start --wait lull-load" ;;
esac
