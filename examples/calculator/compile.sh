# SPDX-License-Identifier: MIT
. "$toolchain/tools.sh"
compile "$src/$file" "$out"
