# SPDX-License-Identifier: MIT
"""Escapes and leaks that a build tries, each with what must happen. One build runs all probes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from builders_support import PYTHON, needs_sandbox, python_paths
from builders_support import request as make_request
from tvix_build.builders import SandboxBuilder
from tvix_build.builders.sandbox import _Build
from tvix_build.castore import CastoreStore

INPUT, LINKED = "1" * 32 + "-input", "2" * 32 + "-file"

pytestmark = [
    needs_sandbox,
    pytest.mark.skipif(which(PYTHON) is None, reason=f"{PYTHON} is not installed"),
]


class Probe(NamedTuple):
    """An escape.

    Attributes:
        name: what the build tries.
        code: an expression of Python, or statements that set `found`.
        expected: the values, or the names of the errors, of which one must be the result.
    """

    name: str
    code: str
    expected: tuple[object, ...]


ABSENT = ("ENOENT",)
READ_ONLY = ("EROFS",)
UNWRITABLE = ("EROFS", "EACCES")  # whichever the kernel checks first
DENIED = ("EPERM",)
WORDS = {
    "{secret}": "os.environ['SECRET_PATH']",
    "{input}": f"'/nix/store/{INPUT}'",
    "{file}": f"'/nix/store/{LINKED}'",
}
PROBES = [
    # Files of the host.
    Probe("read a file of the host", "open({secret}).read()", ABSENT),
    Probe("read it through /proc/1/root", "open('/proc/1/root' + {secret}).read()", ABSENT),
    Probe("read it through /proc/1/cwd", "open('/proc/1/cwd/..' + {secret}).read()", ABSENT),
    Probe("read it above the root", "open('/' + '../' * 50 + {secret}).read()", ABSENT),
    Probe("read /etc/shadow", "open('/etc/shadow').read()", ABSENT),
    Probe("list /etc", "sorted(os.listdir('/etc'))", (["group", "hosts", "passwd"],)),
    Probe("list /root", "os.listdir('/root')", ABSENT),
    Probe("list /home", "os.listdir('/home')", ABSENT),
    Probe("list /run", "os.listdir('/run')", ABSENT),
    Probe("list /var", "os.listdir('/var')", ABSENT),
    Probe("list the castore", "os.listdir(os.environ['CASTORE'])", ABSENT),
    Probe("list /tmp", "os.listdir('/tmp')", ([],)),
    Probe(
        "list /",
        "sorted(set(os.listdir('/')) - {'lib', 'lib64', 'usr'})",
        (["bin", "build", "dev", "etc", "nix", "proc", "tmp"],),
    ),
    Probe("list what was mounted for the inputs", "os.listdir('/dev/shm')", ([],)),
    Probe("list the store", "sorted(os.listdir('/nix/store'))", ([INPUT, LINKED],)),
    Probe("write to a path of the host", "open('/usr/bin/new', 'w')", READ_ONLY),
    Probe("write to /", "open('/new', 'w')", READ_ONLY),
    Probe("write to /etc", "open('/etc/passwd', 'a')", READ_ONLY),
    Probe("replace the shell", "os.rename('/bin/sh', '/bin/other')", ("EBUSY", "EROFS")),
    Probe("find inherited descriptors", "INHERITED", ([0, 1, 2, 3],)),  # the last one lists them
    # The environment.
    Probe(
        "read the initial environment of process 1",
        "names_of(open('/proc/1/environ', 'rb').read())",
        (["CASTORE", "HOST", "SECRET_PATH"],),
    ),
    Probe("read the host name", "os.uname().nodename", ("localhost",)),
    Probe("set the host name", "socket.sethostname('x')", DENIED),
    # Other processes.
    Probe(
        "see other processes",
        "max(int(one) for one in os.listdir('/proc') if one.isdigit()) < 500",
        (True,),
    ),
    Probe("be process 1", "os.getppid() in (0, 1)", (True,)),
    Probe("signal a process of the host", "os.kill(int(HOST['pid']), 0)", ("ESRCH",)),
    Probe("open a pidfd of it", "os.pidfd_open(int(HOST['pid']))", ("ESRCH",)),
    Probe("trace it", "call('ptrace', 16, int(HOST['pid']), 0, 0)", ("ESRCH",)),
    Probe("read its memory", "open('/proc/%d/mem' % HOST['pid'], 'rb')", ABSENT),
    Probe("pin it to a CPU", "os.sched_setaffinity(int(HOST['pid']), {0})", ("ESRCH",)),
    Probe("read the cgroup of the host", "'process' in open('/proc/self/cgroup').read()", (False,)),
    # Devices.
    Probe("make a device", "os.mknod('/build/device', 0o20666, os.makedev(1, 1))", DENIED),
    Probe("make a block device", "os.mknod('/build/disk', 0o60666, os.makedev(8, 0))", DENIED),
    Probe("open /dev/mem", "open('/dev/mem')", ABSENT),
    Probe("open /dev/kmsg", "open('/dev/kmsg')", ABSENT),
    Probe("open /dev/kvm", "open('/dev/kvm')", ABSENT),
    Probe("open /dev/fuse", "open('/dev/fuse')", ABSENT),
    Probe("open /dev/vda", "open('/dev/vda')", ABSENT),
    Probe(
        "list /dev",
        "sorted(set(os.listdir('/dev')) - {'core', 'ptmx', 'console'})",
        (
            [
                "fd",
                "full",
                "null",
                "pts",
                "random",
                "shm",
                "stderr",
                "stdin",
                "stdout",
                "tty",
                "urandom",
                "zero",
            ],
        ),
    ),
    Probe("write to /dev", "open('/dev/new', 'w')", READ_ONLY),
    Probe("open the terminal", "open('/dev/tty')", ("ENXIO",)),
    Probe(
        "type into the terminal",
        "fcntl.ioctl(1, termios.TIOCSTI, b'x')",
        ("ENOTTY", "EIO", "EPERM"),
    ),
    Probe("fill memory through /dev/shm", "fill('/dev/shm/file', 1 << 27)", ("ENOSPC",)),
    # Privileges.
    Probe("become root", "os.setuid(0)", (*DENIED, "EINVAL")),
    Probe("change the group", "os.setgid(0)", (*DENIED, "EINVAL")),
    Probe("set groups", "os.setgroups([0])", DENIED),
    Probe("read the ids", "[os.getuid(), os.getgid()]", ([1000, 100],)),
    Probe(
        "have capabilities",
        "[status('CapEff'), status('CapPrm'), status('CapAmb'), status('CapBnd')]",
        (["0000000000000000"] * 4,),
    ),
    Probe("get new privileges", "status('NoNewPrivs')", ("1",)),
    Probe("run a program setuid", "setuid_program()", (1000,)),
    Probe("give a file away", "os.chown(here('given'), 0, 0)", (*DENIED, "EINVAL")),
    Probe("make a user namespace", "call('unshare', 0x10000000)", ("ENOSPC", "EPERM")),
    Probe("make a mount namespace", "call('unshare', 0x20000)", DENIED),
    Probe("make a network namespace", "call('unshare', 0x40000000)", DENIED),
    Probe("join a namespace", "setns('/proc/1/ns/mnt')", DENIED),
    Probe("change the root", "os.chroot('/build')", DENIED),
    Probe("pivot the root", "call('pivot_root', b'/build', b'/build')", DENIED),
    Probe("set the clock", "time.clock_settime(time.CLOCK_REALTIME, 0)", DENIED),
    Probe("reboot", "call('reboot', 0xfee1dead, 672274793, 0, 0)", DENIED),
    Probe("load a module", "call('init_module', b'', 0, b'')", (*DENIED, "ENOSYS")),
    Probe("read the kernel's log", "call('syslog', 3, b' ' * 9, 9)", DENIED),
    Probe("read the key ring", "call('keyctl', 0, -3, 0)", DENIED),
    Probe("add a key", "call('add_key', b'user', b'name', b'x', 1, -3)", DENIED),
    Probe("load a BPF program", "call('bpf', 0, 0, 0)", DENIED),
    Probe("count events of the CPU", "call('perf_event_open', 0, 0, -1, -1, 0)", DENIED),
    Probe("handle page faults", "call('userfaultfd', 0)", DENIED),
    Probe("use io_uring", "call('io_uring_setup', 1, bytes(120))", DENIED),
    Probe(
        "open a file by handle",
        "call('open_by_handle_at', -100, bytes(64), 0)",
        (*DENIED, "EINVAL", "ESTALE"),
    ),
    # Mounts.
    Probe("mount a file system", "call('mount', b'none', b'/tmp', b'tmpfs', 0, 0)", DENIED),
    Probe("mount /proc again", "call('mount', b'none', b'/tmp', b'proc', 0, 0)", DENIED),
    Probe("remount / writable", "call('mount', b'none', b'/', b'', 0x1020, 0)", DENIED),
    Probe(
        "remount an input writable",
        "call('mount', b'none', {input}.encode(), b'', 0x1020, 0)",
        DENIED,
    ),
    Probe("unmount an input", "call('umount2', {input}.encode(), 2)", DENIED),
    Probe("unmount the store", "call('umount2', b'/nix/store', 2)", DENIED),
    Probe("clone a mount", "call('open_tree', -100, b'/', 1)", DENIED),
    # /proc and /sys.
    Probe("list /sys", "os.listdir('/sys')", ABSENT),
    Probe("set core_pattern", "open('/proc/sys/kernel/core_pattern', 'w').write('|/x')", READ_ONLY),
    Probe("set a sysctl of memory", "open('/proc/sys/vm/drop_caches', 'w').write('1')", READ_ONLY),
    Probe(
        "use sysrq", "open('/proc/sysrq-trigger', 'w').write('h')", READ_ONLY + ABSENT + ("EACCES",)
    ),
    Probe("set oom_score_adj", "open('/proc/self/oom_score_adj', 'w').write('-1')", READ_ONLY),
    Probe("set uid_map", "open('/proc/self/uid_map', 'w').write('0 0 1')", READ_ONLY),
    Probe("read /proc/kcore", "open('/proc/kcore', 'rb')", (*DENIED, "EACCES", "ENOENT")),
    Probe("read /proc/kmsg", "open('/proc/kmsg', 'rb')", (*DENIED, "EACCES", "ENOENT")),
    # The network and IPC.
    Probe(
        "connect to a port of the host",
        "connect(socket.AF_INET, ('127.0.0.1', HOST['port']))",
        ("ECONNREFUSED",),
    ),
    Probe(
        "connect to an abstract socket",
        "connect(socket.AF_UNIX, '\\0' + HOST['abstract'])",
        ("ECONNREFUSED",),
    ),
    Probe("connect to a socket of the host", "connect(socket.AF_UNIX, HOST['socket'])", ABSENT),
    Probe("connect to the network", "connect(socket.AF_INET, ('192.0.2.1', 80))", ("ENETUNREACH",)),
    Probe("resolve a name", "socket.getaddrinfo('example.org', 80)", ("gaierror",)),
    Probe("list interfaces", "[name for _, name in socket.if_nameindex()]", (["lo"],)),
    Probe("open a raw socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", DENIED),
    Probe("open a packet socket", "socket.socket(17, socket.SOCK_RAW)", ("EAFNOSUPPORT",)),
    Probe(
        "open a socket to the hypervisor",
        "socket.socket(40, socket.SOCK_STREAM)",
        ("EAFNOSUPPORT",),
    ),
    Probe(
        "see shared memory of the host", "len(open('/proc/sysvipc/shm').readlines())", (1, "ENOENT")
    ),
    # Inputs.
    Probe("write to an input", "open({file}, 'a')", UNWRITABLE),
    Probe("truncate an input", "os.truncate({file}, 0)", UNWRITABLE),
    Probe("change the mode of an input", "os.chmod({file}, 0o777)", READ_ONLY),
    Probe("change the times of an input", "os.utime({file}, (9, 9))", READ_ONLY),
    Probe(
        "set an attribute of an input",
        "os.setxattr({file}, 'user.a', b'b')",
        (*READ_ONLY, "EPERM", "EOPNOTSUPP"),
    ),
    Probe("link an input", "os.link({file}, '/nix/store/linked')", ("EXDEV",)),
    Probe("remove an input", "os.unlink({file})", ("EBUSY", "EROFS")),
    Probe("rename an input", "os.rename({input}, '/nix/store/other')", ("EBUSY", "EROFS")),
    Probe("replace an input", "os.rename(here('replacement'), {file})", ("EBUSY", "EXDEV")),
    Probe("add a file to an input", "open({input} + '/new', 'w')", READ_ONLY),
    Probe("write to a file in an input", "open({input} + '/file', 'r+')", UNWRITABLE),
    Probe("rename the store", "os.rename('/nix/store', '/nix/other')", ("EBUSY", "EROFS")),
    Probe("map an input writable", "mmap.mmap(os.open({file}, os.O_RDWR), 1)", UNWRITABLE),
]
PROGRAM = """
import ctypes, errno, fcntl, json, mmap, os, platform, socket, sys, termios, time
HOST = json.loads(os.environ['HOST'])
INHERITED = sorted(map(int, os.listdir('/proc/self/fd')))
NUMBERS = {
    'x86_64': dict(ptrace=101, unshare=272, pivot_root=155, reboot=169, init_module=175, syslog=103,
        keyctl=250, add_key=248, bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425,
        open_by_handle_at=304, mount=165, umount2=166, open_tree=428, setns=308),
    'aarch64': dict(ptrace=117, unshare=97, pivot_root=41, reboot=142, init_module=105, syslog=116,
        keyctl=219, add_key=217, bpf=280, perf_event_open=241, userfaultfd=282, io_uring_setup=425,
        open_by_handle_at=265, mount=40, umount2=39, open_tree=428, setns=268),
}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if libc.syscall(NUMBERS[name], *arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
    return 'done'
def names_of(environment):
    return sorted(one.split(b'=')[0].decode() for one in environment.split(b'\\0') if one)
def setns(path):
    return call('setns', os.open(path, os.O_RDONLY), 0)
def status(key):
    for line in open('/proc/self/status'):
        if line.startswith(key + ':'):
            return line.split()[1]
def fill(path, size):
    with open(path, 'wb', 0) as file:
        for _ in range(size >> 20):
            if file.write(bytes(1 << 20)) < 1 << 20:
                file.write(b'x')
def connect(family, address):
    with socket.socket(family) as one:
        one.connect(address)
def here(name):
    open('/build/' + name, 'w').close()
    return '/build/' + name
def setuid_program():
    # The shell as a file of the build, setuid and owned by the user of the build.
    import shutil, subprocess
    path = shutil.copyfile('/bin/sh', '/build/sh')
    os.chmod(path, 0o6755)
    script = 'while read k v _; do [ $k = Uid: ] && echo $v && exit; done < /proc/self/status'
    return int(subprocess.check_output([path, '-c', script]))
def probe(code):
    try:
        return eval(code)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return repr(error)
results = {}
for name, code in json.loads(sys.argv[1]):
    # A process of its own for each, so that none affects the next one.
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        with open(write, 'w') as file:
            json.dump(probe(code), file)
        os._exit(0)
    os.close(write)
    with open(read) as file:
        results[name] = json.load(file)
    os.wait()
json.dump(results, open('/nix/store/out', 'w'))
"""


@pytest.fixture(scope="module", params=[True, False], ids=["overlay", "no overlay"])
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, object]]:
    """The results of all probes, by name. Where the kernel can, mount points are in an overlay."""
    directory = tmp_path_factory.mktemp("host")
    secret = directory / "secret"
    secret.write_text("secret")
    (directory / INPUT).mkdir()
    (directory / INPUT / "file").write_text("file")
    (directory / LINKED).write_text("file")
    with (
        CastoreStore(directory / "castore") as castore,
        socket.create_server(("127.0.0.1", 0)) as port,
        pytest.MonkeyPatch.context() as patch,
        TemporaryDirectory(dir="/tmp") as sockets,  # Paths of sockets must be short.
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        named.bind(f"{sockets}/socket")
        named.listen()
        abstract.bind(f"\0tvix-build-{os.getpid()}")
        abstract.listen()
        host = {
            "pid": os.getpid(),
            "port": port.getsockname()[1],
            "socket": named.getsockname(),
            "abstract": f"tvix-build-{os.getpid()}",
        }
        codes = [(one.name, _fill(one.code)) for one in PROBES]
        if not request.param:
            patch.setattr(_Build, "_overlay", "")
        build = make_request(
            "",
            command_args=[PYTHON, "-IEsc", PROGRAM, json.dumps(codes)],
            inputs=[castore.ingest(directory / INPUT), castore.ingest(directory / LINKED)],
            available_ro_paths=python_paths(),
            environment_vars={
                "CASTORE": str(directory / "castore"),
                "HOST": json.dumps(host),
                "SECRET_PATH": str(secret),
            },
        )
        logs: list[bytes] = []
        try:
            result = SandboxBuilder(castore).build(build, on_log=logs.append)
        finally:
            print(b"".join(logs).decode())
        digest = result.response.outputs[0].output.file.digest
        with castore.open_blob(digest) as file:
            found = json.loads(file.read())
        yield found
        assert Path(secret).read_text() == "secret"


def _fill(code: str) -> str:
    for word, value in WORDS.items():
        code = code.replace(word, value)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("probe", PROBES, ids=lambda one: one.name)
def test_a_build_cannot(results: dict[str, object], probe: Probe) -> None:
    assert results[probe.name] in probe.expected


def test_there_are_many() -> None:
    assert len({one.name for one in PROBES}) == len(PROBES) > 90
