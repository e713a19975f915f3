# SPDX-License-Identifier: MIT
# Runs the programs of the toolchain, without a file outside of its directory.

tool() {
  program=$1
  shift
  "$toolchain/lib/loader" --library-path "$toolchain/lib" "$toolchain/bin/$program" "$@"
}

# compile SOURCE OBJECT
compile() {
  for directory in "$toolchain/include" $headers; do
    set -- "$@" -I "$directory"
  done
  source=$1 object=$2
  shift 2
  tool cc1 -quiet -O1 -Wall -Wextra -Werror -nostdinc "$@" "$source" -o "$TMPDIR/code.s"
  tool as "$TMPDIR/code.s" -o "$object"
}

# link PROGRAM OBJECT...
link() {
  program=$1 lib=$toolchain/lib
  shift
  tool ld -static -o "$program" "$lib/crt1.o" "$lib/crti.o" "$lib/crtbeginT.o" "$@" \
    --start-group "$lib/libgcc.a" "$lib/libgcc_eh.a" "$lib/libc.a" --end-group \
    "$lib/crtend.o" "$lib/crtn.o"
}
