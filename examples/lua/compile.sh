# SPDX-License-Identifier: MIT
for file in "$src"/src/*.c; do
  [ "${file##*/}" = luac.c ] || set -- "$@" "$file"
done
export ZIG_GLOBAL_CACHE_DIR="$TMPDIR/zig" ZIG_LOCAL_CACHE_DIR="$TMPDIR/zig"
"$ziglang/zig" cc -target x86_64-linux-musl -std=c99 -O2 -s -DLUA_USE_POSIX -o "$out" "$@"
