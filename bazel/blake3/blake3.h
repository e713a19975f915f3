// SPDX-License-Identifier: MIT
#include "c/blake3.h"
