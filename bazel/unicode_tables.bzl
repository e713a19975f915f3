# SPDX-License-Identifier: MIT
"""unicode_tables: what Hypothesis keeps in files of Unicode's characters."""

def _unicode_tables_impl(ctx):
    tables = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run(
        executable = ctx.executable.maker,
        env = {"HYPOTHESIS_STORAGE_DIRECTORY": tables.path},
        outputs = [tables],
        mnemonic = "UnicodeTables",
    )
    return [DefaultInfo(files = depset([tables]), runfiles = ctx.runfiles([tables]))]

unicode_tables = rule(
    implementation = _unicode_tables_impl,
    doc = "Makes the tables once: in sandboxes, each process would make them again, which takes three seconds.",
    attrs = {"maker": attr.label(mandatory = True, executable = True, cfg = "exec")},
)
