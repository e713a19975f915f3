# SPDX-License-Identifier: MIT
"""The plan of a sandbox and the arguments of bubblewrap, without running it."""

from __future__ import annotations

from typing import Any

import pytest

import tvix_build
from builders_support import request
from tvix_build.builders.layout import Layout, bubblewrap_arguments, plan

INPUTS = [
    tvix_build.file_node("one", digest=bytes(32), size=1),
    tvix_build.symlink_node("two", target="one"),
]


def arguments(layout: Layout) -> str:
    return " ".join(bubblewrap_arguments(layout, root="/R", shell="/S"))


def test_the_layout_of_nix() -> None:
    layout = plan(request("", inputs=INPUTS), host_files={})
    assert layout.directories == ["bin", "build", "dev", "etc", "nix", "nix/store", "proc", "tmp"]
    assert layout.writable == ["build", "nix/store", "tmp"]
    assert layout.host_directories() == ["build", "nix", "nix/store", "tmp"]
    assert layout.inputs == ["nix/store/one", "nix/store/two"]
    assert sorted(layout.files) == ["etc/group", "etc/hosts", "etc/passwd"]
    text = arguments(layout)
    assert text.endswith(
        "--remount-ro /dev --remount-ro /proc --dir /bin --dir /etc --dir /nix "
        "--bind /R/build /build --bind /R/nix/store /nix/store --bind /R/tmp /tmp "
        "--ro-bind /S /bin/sh --chdir /build"
    )
    for option in (
        *("--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-user"),
        *("--disable-userns", "--cap-drop ALL", "--die-with-parent", "--new-session", "--clearenv"),
        *("--uid 1000 --gid 100 --hostname localhost", "--proc /proc --dev /dev"),
    ):
        assert f" {option} " in f" {text} "


def test_the_network() -> None:
    files = {"/etc/resolv.conf": b"nameserver ::1\n"}
    layout = plan(request("", network_access=True), host_files=files)
    assert layout.files["etc/resolv.conf"] == b"nameserver ::1\n"
    assert "--unshare-net" not in arguments(layout)
    assert "etc/resolv.conf" not in plan(request(""), host_files=files).files


def test_inputs_outside_of_scratch_paths_are_in_memory() -> None:
    layout = plan(request("", inputs=INPUTS, scratch_paths=["build"]), host_files={})
    assert not layout.is_writable("nix/store/one")
    assert layout.host_directories() == ["build", "tmp"]
    assert "--dir /nix --dir /nix/store --bind /R/build" in arguments(layout)


def test_directories_above_the_inputs_cannot_be_renamed() -> None:
    layout = plan(
        request("", inputs=INPUTS, inputs_dir="a/b/c", scratch_paths=["a", "a/x"]), host_files={}
    )
    assert layout.writable == ["a", "tmp"]
    assert layout.pinned == ["a/b", "a/b/c"]
    assert "--bind /R/a/b /a/b --bind /R/a/b/c /a/b/c " in arguments(layout)


def test_paths_of_the_host() -> None:
    paths = ["/dev/kvm", "/opt/data"]
    text = arguments(plan(request("", available_ro_paths=paths), host_files={}))
    assert "--dev-bind /dev/kvm /dev/kvm --remount-ro /dev/kvm --remount-ro /dev " in text
    assert text.endswith("--ro-bind /opt/data /opt/data --ro-bind /S /bin/sh --chdir /build")


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs_dir": "", "inputs": [tvix_build.file_node("etc", digest=bytes(32), size=1)]},
        {"inputs_dir": "", "inputs": [tvix_build.file_node("dev", digest=bytes(32), size=1)]},
        {"inputs_dir": "", "inputs": [tvix_build.file_node("tmp", digest=bytes(32), size=1)]},
        {"available_ro_paths": ["/bin"]},
        {"available_ro_paths": ["/bin/sh"]},
        {"available_ro_paths": ["/dev"]},
        {"available_ro_paths": ["/etc"]},
        {"available_ro_paths": ["/nix"]},
        {"available_ro_paths": ["/proc/sys"]},
        {"available_ro_paths": ["/tmp"]},
        {"additional_files": [("nix", "")]},
        {"additional_files": [("proc/x", "")]},
        {"scratch_paths": ["nix/store/one"], "inputs": INPUTS},
        {"working_dir": "etc/passwd"},
    ],
)
def test_paths_that_are_in_the_way(changes: dict[str, Any]) -> None:
    with pytest.raises(tvix_build.Error) as caught:
        plan(request("", **changes), host_files={})
    assert type(caught.value).__name__ == "RefusedError"
