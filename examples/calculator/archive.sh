# SPDX-License-Identifier: MIT
. "$toolchain/tools.sh"
tool ar rcsD "$out" $objects
