# SPDX-License-Identifier: MIT
"""command_test: a test that runs a program, such as a linter, over files."""

load("@rules_shell//shell:sh_test.bzl", "sh_test")

def command_test(name, program, args, data, tags = [], **kwargs):
    """Run a program from the root of the runfiles; the test passes if the exit status is 0.

    Args:
      name: name of the test.
      program: label of the program, a file.
      args: arguments of the program; $(rootpaths X) expands labels in data.
      data: files that the program reads.
      tags: tags of the test, in addition to "lint".
      **kwargs: passed to sh_test.
    """
    sh_test(
        name = name,
        size = "small",
        srcs = [str(Label("//bazel:run_command.sh"))],
        args = ["$(rootpath %s)" % program] + args,
        data = data + [program],
        tags = tags + ["lint"],
        **kwargs
    )
