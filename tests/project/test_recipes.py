# SPDX-License-Identifier: MIT
"""The recipes of packages and of Buf parse, and name versions and dependencies that are right."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

import tvix_build
from builders_support import needs_sandbox
from cli_support import COMMAND, environment
from fake_builder import FakeBuilder
from serving import METHOD, open_proxy, socket_directory
from tvix_build import cli
from tvix_build.castore import CastoreStore
from tvix_build.cli.commands.serve import serve
from tvix_build.proxy.line_writer import LineWriter
from tvix_build.proxy.metrics import Metrics
from tvix_build.proxy.outcomes import ServiceOutcome
from tvix_build.proxy.plan_runs import PlanOptions
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.worker_metrics import WorkerMetrics
from waiting import LIMIT

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
NIX = sorted((PACKAGING / "nix").glob("*.nix"))

needs_nix = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="needs nix-instantiate: apt install nix-bin"
)


def requirements() -> dict[str, str]:
    """Return the requirements of the package with its command line: lower bounds by name."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|cli) = \[(.*)\]$", pyproject, re.MULTILINE)
    assert len(lists) == 2
    return dict(re.findall(r'"([\w.]+)>=([\d.]+)', "".join(lists)))


def nix_instantiate(*arguments: str | Path) -> str:
    """Return the output of nix-instantiate, which needs no store for these arguments."""
    command = ["nix-instantiate", "--store", "dummy://", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=LIMIT)
    return done.stdout


def test_buf_module_has_the_protos() -> None:
    buf = yaml.safe_load((ROOT / "buf.yaml").read_text())
    assert buf["version"] == "v2"
    (module,) = buf["modules"]
    protos = {path.name for path in (ROOT / module["path"]).rglob("*.proto")}
    ours = {"google.proto", "plan.proto", "remote_execution.proto", "rpc_plan.proto"}
    assert protos == {"build.proto", "castore.proto", "rpc_build.proto", "rpc_castore.proto"} | ours
    # Exceptions only for names of upstream.
    assert sorted(buf["lint"]["except"]) == [
        "PACKAGE_DIRECTORY_MATCH",
        "RPC_REQUEST_STANDARD_NAME",
        "RPC_RESPONSE_STANDARD_NAME",
    ]
    assert buf["lint"]["ignore"] == ["proto/reapi"]


@pytest.mark.skipif(shutil.which("buf") is None, reason="needs buf: npm install @bufbuild/buf")
@pytest.mark.parametrize("command", ["build", "lint"])
def test_buf_accepts_the_module(command: str) -> None:
    subprocess.run(["buf", command], cwd=ROOT, check=True, timeout=LIMIT)


def test_debian_changelog_has_the_version() -> None:
    changelog = (PACKAGING / "debian" / "changelog").read_text()
    assert changelog.startswith(f"tvix-build ({tvix_build.__version__}-")


def test_debian_patch_applies() -> None:
    (patch,) = (PACKAGING / "debian" / "patches").glob("*.patch")
    _, *hunks = patch.read_text().split("\n@@")
    assert hunks
    for hunk in hunks:
        _, *lines = hunk.splitlines()
        before = [line[1:] for line in lines if not line.startswith("+")]
        assert "\n".join(before) in (ROOT / "pyproject.toml").read_text()


@needs_nix
@pytest.mark.parametrize("file", NIX, ids=lambda path: path.name)
def test_nix_parses(file: Path) -> None:
    assert nix_instantiate("--parse", file)


@needs_nix
def test_nix_evaluates_without_nixpkgs() -> None:
    assert [file.name for file in NIX] == ["flake.nix", "package.nix"]
    stub = ROOT / "tests" / "project" / "nixpkgs_stub.nix"
    systems = json.loads(nix_instantiate("--eval", "--strict", "--json", stub))
    assert sorted(systems) == ["aarch64-linux", "x86_64-linux"]
    for packages in systems.values():
        package = packages["default"]
        assert package["version"] == tvix_build.__version__
        assert (Path(package["src"]) / "pyproject.toml").exists()
        names = {name.replace(".", "-") for name in requirements()}
        assert set(package["dependencies"]) == names
        assert {"cffi", "grpcio-tools", "setuptools"} == set(package["build-system"])


def test_conda_recipe_names_what_the_package_needs() -> None:
    recipe: Any = yaml.safe_load((PACKAGING / "conda" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == tvix_build.__version__
    run = recipe["requirements"]["run"]
    plain = [one if isinstance(one, str) else one["then"] for one in run]
    found = dict(one.split(" >=") for one in plain if ">=" in one)
    assert '${{ pin_compatible("protobuf") }}' in plain
    assert {**found, "protobuf": requirements()["protobuf"]} == requirements()
    tree, blake3 = recipe["source"]
    assert (PACKAGING / "conda" / tree["path"]).resolve() == ROOT.resolve()
    rule = (ROOT / "bazel" / "blake3_repository.bzl").read_text()
    assert blake3["url"] in rule
    assert base64.b64encode(bytes.fromhex(blake3["sha256"])).decode() in rule


def test_the_unit_of_systemd_has_known_options() -> None:
    text = (PACKAGING / "systemd" / "tvix-build.service").read_text()
    known = {name for option in serve.params for name in option.opts}
    used = set(re.findall(r"(?<= )--[a-z-]+", text))
    assert "--config" in used
    assert used <= known


def kubernetes() -> dict[str, Any]:
    """Return the objects of the example of Kubernetes by their kinds."""
    text = (PACKAGING / "kubernetes" / "tvix-build.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def container_options(path: Path) -> dict[str, Any]:
    """Return the options of `serve` in the example of Kubernetes, written to a file."""
    path.write_text(kubernetes()["ConfigMap"]["data"]["serve.toml"])
    with serve.make_context("serve", ["--config", str(path)]) as context:
        return context.params


def test_the_example_of_kubernetes_fits_the_proxy(tmp_path: Path) -> None:
    options = container_options(tmp_path / "serve.toml")
    assert cli.main(["serve", "--config", str(tmp_path / "serve.toml"), "--check-config"]) == 0
    found = kubernetes()
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    (listen,) = options["listen"]
    assert ports == {"grpc": listen.port, "metrics": options["metrics"][1]}
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    for name in ("livenessProbe", "readinessProbe"):
        assert container[name]["grpc"]["port"] == ports["grpc"]
    services = {one.name for one in options["services"]}
    assert container["readinessProbe"]["grpc"]["service"] in services
    assert pod["spec"]["terminationGracePeriodSeconds"] > options["drain_delay"] + options["grace"]
    (port,) = found["Service"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (ports["grpc"], "grpc")
    labels = pod["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    mounted = pod["spec"]["volumes"][0]["configMap"]["name"]
    assert mounted == found["ConfigMap"]["metadata"]["name"]


def test_the_image_fits_the_example_of_kubernetes(tmp_path: Path) -> None:
    lines = (PACKAGING / "container" / "Containerfile").read_text().splitlines()
    image = {word: rest for word, _, rest in (line.partition(" ") for line in lines)}
    options = container_options(tmp_path / "serve.toml")
    assert image["EXPOSE"] == f"{options['listen'][0].port} {options['metrics'][1]}"
    spec = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    user = spec["securityContext"]
    assert image["USER"] == f"{user['runAsUser']}:{user['runAsGroup']}"
    (mount,) = spec["containers"][0]["volumeMounts"]
    command = ["serve", "--config", f"{mount['mountPath']}/serve.toml"]
    assert json.loads(image["CMD"]) == command


@needs_sandbox
def test_the_proxy_runs_without_privileges_and_with_a_read_only_root(tmp_path: Path) -> None:
    """As in the container, on this machine's files."""
    container_options(tmp_path / "serve.toml")
    with socket_directory() as directory:
        command = ["bwrap", "--unshare-all", "--die-with-parent", "--uid", "65532", "--gid"]
        command += ["65532", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--proc", "/proc"]
        command += ["--dev", "/dev", "--ro-bind", str(tmp_path), str(tmp_path)]
        command += ["--bind", directory, directory, *COMMAND, "serve"]
        command += ["--config", str(tmp_path / "serve.toml")]
        command += ["--listen", f"grpc+unix:{directory}/proxy", "--metrics", "127.0.0.1:0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment())
        try:
            assert process.stderr
            lines = map(json.loads, process.stderr)
            line = next(one for one in lines if one["event"] == "listening")
            with grpc.insecure_channel(parse(line["addresses"][0]).target) as channel:
                method: Any = channel.unary_unary(METHOD)
                with pytest.raises(grpc.RpcError) as error:
                    method(b"\x08", timeout=LIMIT)
                assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        finally:
            process.kill()
            process.communicate()


METRIC = re.compile(r"tvix_build_\w+")


def expressions() -> list[str]:
    """Return the expressions of the alert rules and of the dashboard."""
    monitoring = PACKAGING / "monitoring"
    rules = yaml.safe_load((monitoring / "alerts.yaml").read_text())["groups"][0]["rules"]
    panels = json.loads((monitoring / "dashboard.json").read_text())["panels"]
    targets = [target["expr"] for panel in panels for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules), *targets]


def names_of_metrics() -> set[str]:
    """Return the names of all metrics of a proxy."""

    async def scenario() -> set[str]:
        writer = LineWriter(2)
        with (
            tempfile.TemporaryDirectory() as directory,
            CastoreStore(Path(directory, "castore")) as castore,
        ):
            plans = PlanOptions(f"{directory}/plans", FakeBuilder(castore), "fake:", 1)
            async with open_proxy(
                "grpc+unix:/none",
                deduplicate=True,
                log=writer,
                audit=writer,
                castore=castore,
                plans=plans,
            ) as proxy:
                metrics = Metrics(proxy.numbers)
                metrics.observe_castore(ServiceOutcome("method", "peer", 0))
                metrics.observe_plans(ServiceOutcome("method", "peer", 0))
                families = [*metrics.collect(), *WorkerMetrics().collect()]
            found = {one.name + "_total" * (one.type == "counter") for one in families}
        writer.close()
        return found

    return asyncio.run(scenario())


def test_alerts_and_the_dashboard_use_known_metrics() -> None:
    known = names_of_metrics()
    for expression in expressions():
        used = {name.removesuffix("_bucket") for name in METRIC.findall(expression)}
        assert used
        assert used <= known, expression


def test_all_metrics_are_documented() -> None:
    page = (ROOT / "docs" / "serve.md").read_text()
    documented = re.findall(r"^\| `(tvix_build_\w+)` \|", page, re.MULTILINE)
    assert sorted(documented) == sorted(names_of_metrics())
