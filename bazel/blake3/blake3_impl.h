// SPDX-License-Identifier: MIT
#include "c/blake3_impl.h"
