#!/bin/sh
# Debian packages that tests compare with: Xen's headers and tools, Wireshark, a browser for the pictures. Without
# them those tests are skipped, with the reason. The lab installs what its emulators need by itself.
set -eu
needed=
for package in libxen-dev xen-utils-4.17 tmux tshark chromium chromium-driver; do
    dpkg -s "$package" >/dev/null 2>&1 || needed="$needed $package"
done
[ -n "$needed" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$needed" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $needed >/dev/null
else
    echo "some tests will be skipped; to run them install:$needed" >&2
fi
