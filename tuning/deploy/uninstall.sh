#!/bin/sh
# Takes away what install.sh has put here, for both roles. Kernel settings keep
# their values until the next boot, and the size of TCP's hash table until
# update-grub and a boot; flags that were changed in /etc/default stay.
set -eu

root=${DESTDIR:-}
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
	echo "this needs root" >&2
	exit 1
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
	for unit in lull lull-load; do
		if [ -e /etc/systemd/system/$unit.service ]; then
			systemctl disable --now $unit.service
		fi
	done
fi
for unit in lull lull-load; do
	flags=$root/etc/default/$unit
	if [ -e "$flags" ] && ! grep -qv '^#' "$flags"; then
		rm "$flags"
	fi
	rm -f "$root/etc/systemd/system/$unit.service"
done
for files in 90-lull-server 90-lull-load; do
	rm -f "$root/etc/sysctl.d/$files.conf" "$root/etc/default/grub.d/$files.cfg"
done
rm -f "$root/usr/local/bin/lull"
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
