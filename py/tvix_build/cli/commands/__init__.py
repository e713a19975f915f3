# SPDX-License-Identifier: MIT
"""The arguments, options and help of each command.

The command line imports the module of a command to run, describe or complete it. These modules
import neither protobuf, the extension nor rich: the code that runs a command is in the module of
the same name in `tvix_build.cli`.
"""
