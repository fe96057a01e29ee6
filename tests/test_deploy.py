"""The files of deploy/: what they say is what the command line, the systems they are for, and the pins know."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kuber.cli.app import app
from tests.fixtures.commands import finished
from tests.fixtures.extras import closure, only, requirements

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def flags(command: str) -> set[str]:
    """Every flag of a command."""
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    return {flag for parameter in found.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def compose() -> dict[str, list[str]]:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return {name: service["command"] for name, service in services.items() if "command" in service}


def objects() -> list[dict]:
    return [one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if one]


def pods() -> dict[str, dict]:
    return {one["metadata"]["name"]: one["spec"]["template"] for one in objects() if one["kind"] == "Deployment"}


def commands() -> list[tuple[str, list[str]]]:
    """Where, and the words after `kuber`."""
    found = list(compose().items())
    found += [(name, pod["spec"]["containers"][0]["args"]) for name, pod in pods().items()]
    for file in (DEPLOY / "systemd").glob("*.service"):
        line = re.search(r"^ExecStart=/opt/kuber/bin/kuber (.*)$", file.read_text(), re.MULTILINE)
        assert line
        found.append((file.name, line[1].split()))
    return found


@pytest.mark.parametrize(("place", "words"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_flag_exists(place, words):
    used = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
    assert used <= flags(words[0])
    assert all(word.startswith("--") for word in words[1:])


def test_there_is_something_of_each_kind():
    services = {f"kuber-{name}{kind}" for name in ("registry", "vault") for kind in ("", ".service")}
    assert {place for place, _ in commands()} == services | {"registry", "vault", "dashboard"}


def test_what_kubernetes_is_told_belongs_together():
    named = {(one["kind"], one["metadata"]["name"]) for one in objects()}
    assert all(one["apiVersion"] for one in objects())
    for name, pod in pods().items():
        (container,) = pod["spec"]["containers"]
        assert ("Service", name) in named
        port = container["ports"][0]["containerPort"]
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in pod["spec"]["volumes"]}
        options = dict(word.lstrip("-").partition("=")[::2] for word in container["args"])
        assert options["data"] == mounts["data"]
        assert options["secret"] == f"{mounts['hub']}/secret"
        other = "vault" if name == "kuber-registry" else "registry"
        assert options[other] == f"http://kuber-{other}:{5002 if other == 'vault' else 5001}"
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in named
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in named
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] == "/healthz"
    (ingress,) = [one for one in objects() if one["kind"] == "Ingress"]
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert {path["path"] for path in paths} == {"/v1", "/healthz"}
    assert {("Service", path["backend"]["service"]["name"]) for path in paths} <= named


def test_no_proxy_limits_the_size_of_a_model():
    """The vault has a bound of its own."""
    (ingress,) = [one for one in objects() if one["kind"] == "Ingress"]
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"
    _, vault = (DEPLOY / "nginx" / "kuber.conf").read_text().split("server_name vault")
    assert "client_max_body_size 0;" in vault


@pytest.mark.process
def test_systemd_finds_nothing_wrong(tmp_path):
    for file in (DEPLOY / "systemd").glob("*.service"):
        text = file.read_text().replace("/opt/kuber/bin/kuber", str(Path(sys.executable).parent / "kuber"))
        (tmp_path / file.name).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def pins() -> dict[str, str]:
    """What a hub is made of, and of which version."""
    lines = (DEPLOY / "requirements-hub.txt").read_text().split("\n")
    told = (line.split("==") for line in lines if line[:1] not in ("", "#"))
    return {canonicalize_name(name): version for name, version in told}


def test_the_requirements_of_a_hub_are_whole_and_pinned_as_everything_is():
    """A new dependency of the services, or another pin, has to be told there too."""
    pinned = pins()
    everything = (ROOT / "constraints.txt").read_text().split()
    all_pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in everything)}
    assert {name: version for name, version in pinned.items() if all_pins.get(name, version) != version} == {}
    learning = {"torch", "numpy", "safetensors", "pillow"}
    roots = [line for line in requirements() if canonicalize_name(Requirement(line).name) not in learning]
    roots += requirements("hub", "dashboard", "postgresql", "s3", "tracing")
    assert closure(*roots) <= pinned.keys()
    assert not {"torch", "numpy"} & pinned.keys()


@pytest.mark.parametrize("command", [["registry"], ["vault", "--registry", "http://127.0.0.1:9"]])
@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
@pytest.mark.process
def test_a_service_starts_with_what_is_pinned_and_nothing_else(command, place, tmp_path, request):
    """What is imported only on the way shows here, and else on the operator's machine."""
    options = ["--data", str(tmp_path), "--secret", str(tmp_path / "secret"), "--port", "0", "--stop-with-stdin"]
    if place == "postgresql":
        options += ["--database", request.getfixturevalue(f"{command[0]}_database")]
    done = finished(*command, *options, program=only(pins()), preload=())
    assert done.returncode == 0, done.stderr
    assert "is up at" in done.stdout


def test_the_image_gets_all_files_that_it_copies():
    """What the build is not shown is not there."""
    shown = (ROOT / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    files = [name for line in copied for name in line.split()]
    assert files
    for name in files:
        assert (ROOT / name).exists()
        assert f"!{name}" in shown
