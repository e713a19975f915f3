# SPDX-License-Identifier: MIT
"""The module extensions of MODULE.bazel, for Bazel 7 and later. Bazel 4.2.3 has no module extensions."""

load(":repositories.bzl", "DEVELOPMENT_REPOSITORIES", "define_repositories", "public_repositories")

_python = tag_class(
    doc = "The Python for which packages are installed; only the root module can choose it.",
    attrs = {
        "interpreter": attr.label(
            doc = "The interpreter, a file of a repository, such as @python_3_12_host//:python.",
            mandatory = True,
        ),
    },
)

def _tvix_build_impl(ctx):
    tags = [tag for module in ctx.modules if module.is_root for tag in module.tags.python]
    if len(tags) > 1:
        fail("expected at most one python(interpreter = ...), found %d" % len(tags))
    define_repositories(public_repositories(tags[0].interpreter if tags else None))

tvix_build = module_extension(
    implementation = _tvix_build_impl,
    doc = "The repositories that public targets need.",
    tag_classes = {"python": _python},
)

def _development_impl(_ctx):
    define_repositories(DEVELOPMENT_REPOSITORIES)

development = module_extension(
    implementation = _development_impl,
    doc = "The additional repositories of the project's own tests.",
)
