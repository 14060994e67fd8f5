#!/bin/sh
# An ARM64 Debian with Python and what `pip install limbeck` brings, in a folder: tests/edge/arm64_root.sh FOLDER
# Packages are unpacked, not installed: it needs no root, and nothing outside FOLDER changes. Needs apt, dpkg-deb and pip.
set -eu
project=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
python=${PYTHON:-python3}

apt=$root/.apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
: > "$apt/status" # nothing is there: every dependency is fetched
sources=/etc/apt/sources.list.d/debian.sources
[ -e $sources ] || sources=/etc/apt/sources.list
arm64() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$apt/lists" \
    -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o Dir::Etc::sourcelist=$sources \
    -o Dir::Etc::sourceparts=- -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@"
}
arm64 update
arm64 --yes --no-install-recommends --download-only -o Debug::NoLocking=1 install python3 libstdc++6
for package in "$apt"/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$root"
done
[ -e "$root/lib" ] || ln -s usr/lib "$root/lib"

version=$(ls "$root/usr/lib" | sed -n 's/^python\(3\.[0-9]*\)$/\1/p')
"$python" -c "import sys, tomllib; print(*tomllib.load(open(sys.argv[1], 'rb'))['project']['dependencies'], sep='\n')" \
  "$project/pyproject.toml" > "$apt/requirements.txt"
"$python" -m pip install --quiet --upgrade --target "$root/usr/local/lib/python$version/dist-packages" \
  --implementation cp --python-version "$version" --only-binary=:all: \
  --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 \
  --platform manylinux_2_34_aarch64 -c "$project/constraints.txt" -r "$apt/requirements.txt"

# One processor, as QEMU's `-cpu max` plays it: before version 8.2 it shows programs the processors of its host, and libraries
# that find more of them below /sys than in cpuinfo crash.
mkdir -p "$root/proc" "$root/sys/devices/system/cpu"
cat > "$root/proc/cpuinfo" << 'END'
processor	: 0
Features	: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp i8mm
CPU implementer	: 0x00
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0x051
CPU revision	: 0
END
for name in possible present online kernel_max; do
  echo 0 > "$root/sys/devices/system/cpu/$name"
done
rm -rf "$apt"
echo "Next: export LIMBECK_ARM64_ROOT=$root"
