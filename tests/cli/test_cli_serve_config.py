# SPDX-License-Identifier: MIT
"""The options of `serve` in a TOML file and in environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tvix_build import cli
from tvix_build.cli.commands.serve import serve


def parse(*arguments: str | Path) -> dict[str, Any]:
    """Return the options that the command gets."""
    with serve.make_context("serve", [str(one) for one in arguments]) as context:
        return context.params


def test_options_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        """
        listen = ["grpc+http://127.0.0.1:1", "grpc+unix:/a"]
        upstream = "grpc+unix:/b"
        max-builds = 7
        upload-timeout = 2.5
        compression = false
        check-only = true
        metrics = "localhost:9000"
        """
    )
    found = parse("--config", file)
    assert [one.text for one in found["listen"]] == ["grpc+http://127.0.0.1:1", "grpc+unix:/a"]
    assert [one.text for one in found["upstreams"]] == ["grpc+unix:/b"]
    assert (found["max_builds"], found["upload_timeout"]) == (7, 2.5)
    assert (found["compression"], found["check_only"]) == (False, True)
    assert found["metrics"] == ("localhost", 9000)


def test_the_order_of_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("max-builds = 1\nmax-queue = 1\nmax-streams = 1\n")
    monkeypatch.setenv("TVIX_BUILD_SERVE_CONFIG", str(file))
    monkeypatch.setenv("TVIX_BUILD_SERVE_MAX_BUILDS", "2")
    monkeypatch.setenv("TVIX_BUILD_SERVE_MAX_QUEUE", "2")
    monkeypatch.setenv("TVIX_BUILD_SERVE_UPSTREAM", "grpc+unix:/a grpc+unix:/b")
    found = parse("--max-builds", "3")
    assert (found["max_builds"], found["max_queue"], found["max_streams"]) == (3, 2, 1)
    assert [one.text for one in found["upstreams"]] == ["grpc+unix:/a", "grpc+unix:/b"]


def test_every_option_has_a_variable() -> None:
    options = {one.name: one for one in serve.params}
    assert options["services"].envvar == "TVIX_BUILD_SERVE_SCHEMA"
    assert options["compression"].envvar == "TVIX_BUILD_SERVE_COMPRESSION"
    missing = {name for name, one in options.items() if one.envvar is None}
    assert missing == {"check_config"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max-buidls = 1", "expected names of options, found 'max-buidls'"),
        ("config = 'a'", "expected names of options"),
        ("max-builds = [1]", "expected a string or a number as the value of 'max-builds'"),
        ("max-builds = true", "expected a string or a number"),
        ("max-builds = 1.5", "'1.5' is not a valid integer"),
        ("max-builds = 2020-01-01", "expected a string or a number"),
        ("check-only = 7", "expected true or false as the value of 'check-only'"),
        ("compression = 'no'", "expected true or false"),
        ("listen = [['a']]", "expected a string or a number as each value of 'listen'"),
        ("max-builds = 'many'", "'many' is not a valid integer"),
        ("[max-builds]", "expected a string or a number"),
        ("max-builds", "expected TOML"),
        ("listen = 'http://a'", "expected grpc+http://HOST:PORT"),
    ],
)
def test_invalid_files(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    assert cli.main(["serve", "--check-only", "--config", str(file)]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert expected in message


def test_an_empty_list_is_no_value(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("listen = []")
    assert [one.text for one in parse("--config", file)["listen"]] == ["grpc+http://127.0.0.1:8000"]


def test_checking_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("grpc_health")
    file = tmp_path / "serve.toml"
    file.write_text("check-only = true\n")
    assert cli.main(["serve", "--config", str(file), "--check-config"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["serve", "--config", str(file), "--check-config", "--jwt-issuer", "a"]) == 2
    assert "expected --jwt-keys" in capsys.readouterr().err


def test_checking_exports_no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    from tvix_build.proxy import tracing

    monkeypatch.delattr(tracing, "exporting_provider")
    arguments = ["serve", "--check-only", "--check-config", "--traces", "http://127.0.0.1:1"]
    assert cli.main(arguments) == 0
