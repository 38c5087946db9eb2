#!/bin/sh
# Copies into a directory all that an image consists of: Python, packages, the shared libraries that they link, and
# Debian's records and licences of those. No shell, no package manager, no compiler.
#   root.sh SITE ROOT
set -eu
site=$1 root=$2
python=$(python -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}")')
library=$root/usr/local/lib/$python
packages=$root/var/lib/dpkg/status.d  # where scanners look in an image without dpkg

keep() {  # FILE: a shared library at its own place, and its package's record and licence
    test ! -e "$root$1" || return 0
    cp -L "$1" "$root$1"
    # Debian moved /lib into /usr/lib, not all of its records.
    record "$(dpkg-query --search "*/${1##*/}" | sed -n '1s/:.*//p')"
}

record() {  # PACKAGE
    dpkg-query --status "${1:?no package has this file}" >"$packages/$1"
    mkdir -p "$root/usr/share/doc/$1"
    # Where it refers to another package of its source, a slim base lacks the reference.
    source=$(dpkg-query --show --showformat '${source:Package}' "$1")
    for package in "$1" $(dpkg-query --show --showformat '${source:Package} ${Package}\n' | sed -n "s/^$source //p"); do
        test ! -e "/usr/share/doc/$package/copyright" || break
    done
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$1/"
}

mkdir -p "$root/usr/lib" "$root/usr/lib64" "$root/usr/local/bin" "$root/usr/local/lib" "$packages" "$root/etc/ssl/certs"
mkdir -m 1777 "$root/tmp"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
for directory in /usr/lib/*-linux-gnu; do mkdir -p "$root$directory"; done

cp -a /usr/local/bin/python /usr/local/bin/python3 "/usr/local/bin/$python" "$root/usr/local/bin/"
cp -a /usr/local/lib/libpython3*.so* "$root/usr/local/lib/"
cp -a "/usr/local/lib/$python" "$root/usr/local/lib/"
cd "$library"
rm -rf site-packages test idlelib tkinter turtledemo turtle.py ensurepip lib2to3 pydoc_data config-* \
    lib-dynload/_tkinter.* lib-dynload/_test* lib-dynload/_ctypes_test* lib-dynload/xxlimited*
find . -name __pycache__ -prune -exec rm -r {} +
mv "$site" site-packages

# What is linked and not beside its user. CUDA's driver, libcuda.so.1, is the host's.
find "$root/usr/local" -type f \( -name '*.so' -o -name '*.so.*' -o -name "$python" \) -exec ldd {} + >/tmp/linked 2>&1
sed -n 's/^\t\([^ ]*\) => not found$/\1/p' /tmp/linked | sort -u | grep -vx 'libcuda\.so\.1' >&2 && exit 1
sed -En 's/^\t([^ ]* => )?((\/usr)?\/lib[^ ]*) \(0x.*/\2/p' /tmp/linked | sort -u | while read -r file; do keep "$file"; done
thread_end=$(ldconfig -p | sed -n 's/^\tlibgcc_s\.so\.1 .* => //p' | head -n 1)  # opened by name
keep "${thread_end:?libgcc_s.so.1}"

record base-files
record ca-certificates
cp -L /etc/os-release "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf '%s\n' root:x:0:0::/:/sbin/nologin feedrank:x:1000:1000::/:/sbin/nologin >"$root/etc/passwd"
printf '%s\n' root:x:0: feedrank:x:1000: >"$root/etc/group"
echo /usr/local/lib >"$root/etc/ld.so.conf"
ldconfig -r "$root"

# Neither time nor size of a source is compared when it is imported.
PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / "$library"
