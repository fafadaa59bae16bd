"""The files that change the stack, put to work in a second one: for writing functions, without the edge, with secrets of one's own."""

import os
import shutil
import tempfile
from pathlib import Path

from scenario import Bench, Scenario
from stack import ROOT, Skipped, Stack, check, wait
from starting import START_SECONDS

# Troupe's group in its containers.
GROUP = 10001
SECRETS = {"mesh.key": "k" * 48, "redis.password": "a-password-of-ones-own", "admin.token": "a-token-of-ones-own-0123456789"}
EDITED = "<?php\n\nreturn fn (): array => ['edited' => true];\n"


def functions_are_written_without_an_edge(bench: Bench) -> str:
    """compose.dev.yaml and docker/compose.without-edge.yaml: the gateway owns the port, an edited function is what the next request
    calls, and the secrets are those that were brought."""
    if os.geteuid() != 0:
        raise Skipped("needs root, to give secrets to Troupe's group")
    with tempfile.TemporaryDirectory(prefix="troupe-overlays-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        files = ["compose.yaml", "compose.dev.yaml", "docker/compose.without-edge.yaml"]
        for each in ("compose.yaml", "compose.dev.yaml", "troupe.toml"):
            shutil.copy(ROOT / each, folder)
        for each in ("functions", "docker"):
            shutil.copytree(ROOT / each, folder / each)
        # Compose wants to see it, although none of its images is built.
        (folder / "loadtests").mkdir()
        for secret, text in SECRETS.items():
            bring(folder / "secrets" / secret, text)
        options = [word for file in files for word in ("-f", str(folder / file))]
        other = Stack([*bench.stack.compose_command, *options], bench.stack.env["TROUPE_TAG"], "overlays")
        other.env["TROUPE_SECRETS"] = str(folder / "secrets")
        try:
            other.up()
            look(other, folder / "functions" / "hello.php")
        finally:
            other.down()
    return "edited, and seen"


def bring(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text + "\n")
    os.chown(file, 0, GROUP)
    file.chmod(0o440)


def look(other: Stack, function: Path) -> None:
    wait(START_SECONDS, lambda: serves(other, '"Ada"'), other.logs)
    check(not other.ids("edge"), "the edge runs all the same")
    function.write_text(EDITED)
    status, body = other.get("/api/hello?name=Ada")
    check(status == 200 and '"edited"' in body, f"after the edit /api/hello answers {status}: {body[:200]}")
    for token, expected in ((SECRETS["admin.token"], 200), ("another", 401)):
        status, _ = other.ask(other.one("balancer"), "/metrics", {"Authorization": f"Bearer {token}"})
        check(status == expected, f"/metrics with the token {token!r} answers {status}")


def serves(other: Stack, part: str) -> bool:
    try:
        status, body = other.get("/api/hello?name=Ada")
    except OSError:
        return False
    return status == 200 and part in body


SCENARIOS: list[Scenario] = [functions_are_written_without_an_edge]
