# SPDX-License-Identifier: MIT
"""Python modules from proto_library targets: python_proto_library and python_grpc_library.

The package of the proto_library is the directory on sys.path, and the modules are in it at the import paths of the
protos. `reapi`, `snix` and `tvix` are namespace packages, without __init__.py.
"""

load("@rules_proto//proto:defs.bzl", "ProtoInfo")
load("@rules_python//python:defs.bzl", "PyInfo")

PythonProtoInfo = provider(
    "Python modules generated from one proto_library and all that it depends on.",
    fields = {
        "imports": "depset of directories for sys.path, relative to the runfiles",
        "sources": "depset of .py files",
        "stubs": "depset of .pyi files",
    },
)

_ATTRS = {
    "data": attr.label_list(
        doc = "Files that belong to the modules, such as py.typed.",
        allow_files = True,
    ),
    "deps": attr.label_list(
        doc = "The libraries that the modules import, such as the protobuf runtime.",
        providers = [PyInfo],
    ),
}

_PROTOC = attr.label(
    default = Label("//bazel:python_protoc"),
    cfg = "exec",
    executable = True,
)

def _import_path(proto, info):
    """Return the path by which other protos import `proto`."""
    root = info.proto_source_root
    return proto.path[len(root) + 1:] if root not in ["", "."] else proto.path

def _generate(ctx, label, info, suffixes, options):
    """Run protoc on the direct sources of a proto_library.

    Args:
      ctx: the context of a rule or an aspect with the attribute _protoc.
      label: the label of the proto_library.
      info: its ProtoInfo.
      suffixes: what replaces ".proto" in the names of the generated files.
      options: protoc's option for each generator, without its value.

    Returns:
      The list of generated files and the directory to put on sys.path.
    """
    paths = [_import_path(proto, info) for proto in info.direct_sources]
    package = label.package + "/" if label.package else ""

    # Without strip_import_prefix, an import path begins with the package.
    below = package and all([path.startswith(package) for path in paths])
    outputs = [
        ctx.actions.declare_file((path[len(package):] if below else path)[:-len(".proto")] + suffix)
        for path in paths
        for suffix in suffixes
    ]
    directory = label.workspace_name or ctx.workspace_name
    if not below:
        directory += "/" + label.package
    if outputs:
        first = paths[0][:-len(".proto")] + suffixes[0]
        arguments = ctx.actions.args()

        # Sources, not descriptor sets: descriptor sets have no comments and contain JSON names, so the generated code
        # would differ from that of setup.py.
        arguments.add_all(info.transitive_proto_path, format_each = "-I%s")
        arguments.add_all(options, format_each = "%s=" + outputs[0].path[:-len(first) - 1])
        arguments.add_all(paths)
        ctx.actions.run(
            executable = ctx.executable._protoc,
            arguments = [arguments],
            inputs = info.transitive_sources,
            outputs = outputs,
            mnemonic = "PythonProtoc",
            progress_message = "Generating Python from %s" % label,
        )
    return outputs, directory

def _python_proto_aspect_impl(target, ctx):
    info = target[ProtoInfo]
    outputs, directory = _generate(ctx, target.label, info, ["_pb2.py", "_pb2.pyi"], ["--python_out", "--pyi_out"])
    below = [dep[PythonProtoInfo] for dep in ctx.rule.attr.deps if PythonProtoInfo in dep]
    return [PythonProtoInfo(
        imports = depset([directory], transitive = [dep.imports for dep in below]),
        sources = depset([f for f in outputs if f.extension == "py"], transitive = [dep.sources for dep in below]),
        stubs = depset([f for f in outputs if f.extension == "pyi"], transitive = [dep.stubs for dep in below]),
    )]

_python_proto_aspect = aspect(
    implementation = _python_proto_aspect_impl,
    attr_aspects = ["deps"],
    attrs = {"_protoc": _PROTOC},
)

def _python_providers(ctx, sources, stubs, imports):
    """Return the providers of a Python library of generated files with the dependencies ctx.attr.deps."""
    deps = [dep[PyInfo] for dep in ctx.attr.deps]
    runfiles = ctx.runfiles(ctx.files.data, transitive_files = depset(transitive = [sources, stubs]))
    for dep in ctx.attr.deps:
        runfiles = runfiles.merge(dep[DefaultInfo].default_runfiles)
    return [
        DefaultInfo(files = depset(transitive = [sources, stubs]), runfiles = runfiles),
        PyInfo(
            has_py2_only_sources = False,
            has_py3_only_sources = True,
            imports = depset(transitive = [imports] + [dep.imports for dep in deps]),
            transitive_sources = depset(transitive = [sources] + [dep.transitive_sources for dep in deps]),
            uses_shared_libraries = any([dep.uses_shared_libraries for dep in deps]),
        ),
    ]

def _python_proto_library_impl(ctx):
    info = ctx.attr.proto[PythonProtoInfo]
    return _python_providers(ctx, info.sources, info.stubs, info.imports)

python_proto_library = rule(
    implementation = _python_proto_library_impl,
    doc = "The _pb2 modules and stubs of a proto_library and of all that it depends on.",
    attrs = dict(
        _ATTRS,
        proto = attr.label(
            aspects = [_python_proto_aspect],
            mandatory = True,
            providers = [ProtoInfo],
        ),
    ),
    provides = [PyInfo],
)

def _python_grpc_library_impl(ctx):
    proto = ctx.attr.proto
    if proto.label.package != ctx.label.package:
        fail("%s is not in the package of its proto_library" % ctx.label)
    outputs, directory = _generate(ctx, proto.label, proto[ProtoInfo], ["_pb2_grpc.py"], ["--grpc_python_out"])
    return _python_providers(ctx, depset(outputs), depset(), depset([directory]))

python_grpc_library = rule(
    implementation = _python_grpc_library_impl,
    doc = "The _pb2_grpc modules of one proto_library of the same package.",
    attrs = dict(
        _ATTRS,
        proto = attr.label(
            mandatory = True,
            providers = [ProtoInfo],
        ),
        _protoc = _PROTOC,
    ),
    provides = [PyInfo],
)
