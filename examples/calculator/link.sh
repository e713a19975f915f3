# SPDX-License-Identifier: MIT
. "$toolchain/tools.sh"
compile "$src/$file" "$TMPDIR/main.o"
link "$out" "$TMPDIR/main.o" $libraries
