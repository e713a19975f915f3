# SPDX-License-Identifier: MIT
from tvix_build.builders.interface import RefusedError as RefusedError
