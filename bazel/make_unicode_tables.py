# SPDX-License-Identifier: MIT
"""Let Hypothesis make its tables of Unicode's characters, in $HYPOTHESIS_STORAGE_DIRECTORY."""

from hypothesis import find, settings
from hypothesis.strategies import characters

if __name__ == "__main__":
    find(characters(codec="utf-8"), lambda _: True, settings=settings(database=None))
