"""The Function App has the triggers that it should, bound as they should be."""

import ast
import logging
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import function_app
from shipmate.core.refs import digest_of
from shipmate.edge.registry import Registry
from tests.fakes.http_servers import Answer, answering

ROOT = Path(__file__).parents[2]
DEPLOYED = {
    "LICENSE",
    "constraints.txt",
    "function_app.py",
    "functions",
    "host.json",
    "requirements.txt",
    "shipmate",
}
HTTP = {
    "targets": ("GET", "targets"),
    "target": ("GET", "targets/{target}"),
    "releases": ("GET", "targets/{target}/releases"),
    "release": ("GET", "targets/{target}/releases/{release}"),
    "request": ("GET", "targets/{target}/requests/{request}"),
    "request_release": ("POST", "targets/{target}/releases"),
    "plan": ("GET", "targets/{target}/plan"),
    "request_rollback": ("POST", "targets/{target}/rollback"),
    "before_resume": ("GET", "targets/{target}/resume"),
    "why": ("GET", "targets/{target}/why"),
    "why_anywhere": ("GET", "why"),
    "openapi": ("GET", "openapi.json"),
    "hold": ("POST", "targets/{target}/hold"),
    "resume": ("POST", "targets/{target}/resume"),
}


def test_exactly_these_functions_are_there() -> None:
    found = {each.get_function_name(): each.get_trigger().get_dict_repr() for each in function_app.app.get_functions()}
    routes = {name: trigger for name, trigger in found.items() if trigger["type"] == "httpTrigger"}
    assert {
        name: (trigger["methods"][0].name, trigger["route"], trigger["authLevel"].name)
        for name, trigger in routes.items()
    } == {name: (method, route, "FUNCTION") for name, (method, route) in HTTP.items()}
    assert {name: trigger["type"] for name, trigger in found.items() if name not in routes} == {
        "model_published": "eventGridTrigger",
        "image_pushed": "eventGridTrigger",
        "advance": "queueTrigger",
        "sweep": "timerTrigger",
    }
    assert found["advance"]["queueName"] == "%SHIPMATE_QUEUE%"
    assert found["sweep"]["schedule"] == "%SHIPMATE_SWEEP_SCHEDULE%"


def test_a_signature_that_a_registry_redirects_to_stays_out_of_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # as the worker has the root logger
    data = b"a blob"
    with answering(lambda seen: Answer(200, data)) as (elsewhere, _):
        away = Answer(307, headers={"Location": f"{elsewhere}/blob?sig=SIGNATURE"})
        with answering(lambda seen: away) as (address, _):
            registry = Registry(address)
            assert registry.get_blob("vision-app", digest_of(data), 100) == data
            registry.close()
    logging.getLogger().info("what a function says")
    assert caplog.messages == ["what a function says"]


def test_where_the_platform_asks_people_to_sign_in_the_host_asks_for_no_key() -> None:
    code = (
        "import function_app\n"
        "for each in function_app.app.get_functions():\n"
        "    trigger = each.get_trigger().get_dict_repr()\n"
        "    if trigger['type'] == 'httpTrigger': print(trigger['authLevel'].name)"
    )
    environment = {**os.environ, "WEBSITE_AUTH_ENABLED": "True"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert ran.stdout.decode().split() == ["ANONYMOUS"] * len(HTTP)


def test_what_azure_installs_is_what_is_imported() -> None:
    sources = [ROOT / "function_app.py", *(ROOT / "functions").glob("*.py"), *(ROOT / "shipmate").rglob("*.py")]
    imported: set[str] = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source.read_text()))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    named = {line for line in lines if re.match(r"[a-zA-Z]", line)}
    modules = {name: {"PyYAML": "yaml"}.get(name, name.replace("-", ".")) for name in named}
    assert named - {name for name, module in modules.items() if module in imported} == {
        "azure-functions-runtime"  # the worker itself, pinned so that what is tested is what runs
    }
    foreign = {name.partition(".")[0] for name in imported} - {"functions", "shipmate"} - sys.stdlib_module_names
    assert foreign == {module.partition(".")[0] for module in modules.values()}


def test_what_is_deployed_is_what_the_function_app_needs() -> None:
    patterns = (ROOT / ".funcignore").read_text().split()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [Path(line) for line in listed.splitlines()]
    left_out = {file for file in files for part in file.parts for pattern in patterns if fnmatch(part, pattern)}
    assert {file.parts[0] for file in files if file not in left_out} == DEPLOYED
    assert [str(file) for file in left_out if file.parts[0] in DEPLOYED] == []
    names = {file.parts[0] for file in files}
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)] == []
