# SPDX-License-Identifier: MIT
"""python_wheel: a reproducible wheel of Python libraries."""

load("@rules_python//python:defs.bzl", "PyInfo")

def _wheel_path(file, ctx):
    """Return the path of a file in the wheel; None for files that are not part of the wheel."""
    if file.owner.workspace_name != ctx.label.workspace_name:
        return None
    repository = "../%s/" % ctx.label.workspace_name if ctx.label.workspace_name else ""
    for directory in ctx.attr.strip_prefixes:
        prefix = repository + directory + "/"
        if file.short_path.startswith(prefix):
            return file.short_path[len(prefix):]
    return None

def _python_wheel_impl(ctx):
    name = ctx.attr.distribution.replace("-", "_")
    tag = "%s-%s" % (ctx.attr.python_tag, ctx.attr.platform)
    wheel = ctx.actions.declare_file("%s-%s-%s.whl" % (name, ctx.attr.version, tag))
    contents = {}
    for dep in ctx.attr.deps:
        for file in dep[DefaultInfo].default_runfiles.files.to_list() + dep[DefaultInfo].files.to_list():
            path = _wheel_path(file, ctx)
            if path:
                contents[path] = file
    for file in ctx.files.man_pages:
        contents["%s-%s.data/data/share/man/man1/%s" % (name, ctx.attr.version, file.basename)] = file
    arguments = ctx.actions.args()
    arguments.add("--output", wheel)
    arguments.add("--version", ctx.attr.version)
    arguments.add("--tag", tag)
    arguments.add("--pyproject", ctx.file.pyproject)
    arguments.add("--readme", ctx.file.readme)
    arguments.add("--licence", ctx.file.licence)
    for path in sorted(contents):
        arguments.add("%s=%s" % (path, contents[path].path))
    ctx.actions.run(
        executable = ctx.executable._builder,
        arguments = [arguments],
        inputs = contents.values() + [ctx.file.pyproject, ctx.file.readme, ctx.file.licence],
        outputs = [wheel],
        mnemonic = "PythonWheel",
        progress_message = "Building %s" % wheel.basename,
    )
    return [DefaultInfo(files = depset([wheel]), runfiles = ctx.runfiles([wheel]))]

python_wheel = rule(
    implementation = _python_wheel_impl,
    doc = "A wheel of the files of Python libraries, with the metadata of a pyproject.toml.",
    attrs = {
        "deps": attr.label_list(
            doc = "Libraries whose files go in: those of this repository below strip_prefixes.",
            providers = [PyInfo],
        ),
        "distribution": attr.string(mandatory = True),
        "licence": attr.label(allow_single_file = True, mandatory = True),
        "man_pages": attr.label_list(allow_files = True, doc = "Man pages of section 1."),
        "platform": attr.string(mandatory = True),
        "pyproject": attr.label(allow_single_file = True, mandatory = True),
        "python_tag": attr.string(doc = "Such as cp310-abi3.", mandatory = True),
        "readme": attr.label(allow_single_file = True, mandatory = True),
        "strip_prefixes": attr.string_list(doc = "Directorys of the repository that are roots of the wheel."),
        "version": attr.string(mandatory = True),
        "_builder": attr.label(
            default = Label("//bazel:wheel_builder"),
            cfg = "exec",
            executable = True,
        ),
    },
)
