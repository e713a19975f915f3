# SPDX-License-Identifier: MIT
"""mkdocs_site: a directory of HTML, made from pages anywhere in the tree."""

def _mkdocs_site_impl(ctx):
    site = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add(site.path)
    arguments.add_all([ctx.file.config, ctx.file.hooks])
    for file in ctx.files.srcs:
        arguments.add(file.path, format = file.short_path + "=%s")
    ctx.actions.run(
        executable = ctx.executable.builder,
        arguments = [arguments],
        inputs = ctx.files.srcs + [ctx.file.config, ctx.file.hooks],
        outputs = [site],
        env = {"SOURCE_DATE_EPOCH": "0"},
        mnemonic = "MkDocs",
    )
    return [DefaultInfo(files = depset([site]), runfiles = ctx.runfiles([site]))]

mkdocs_site = rule(
    implementation = _mkdocs_site_impl,
    doc = "Builds a site with MkDocs; a warning is an error.",
    attrs = {
        "builder": attr.label(mandatory = True, executable = True, cfg = "exec"),
        "config": attr.label(mandatory = True, allow_single_file = True),
        "hooks": attr.label(mandatory = True, allow_single_file = True),
        "srcs": attr.label_list(mandatory = True, allow_files = True),
    },
)
