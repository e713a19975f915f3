# SPDX-License-Identifier: MIT
# The extension module that cffi makes from native/tvix_build.h.
from typing import Any

ffi: Any
lib: Any
