"""Where and of what a run was made: a figure without its machine is no figure."""

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def facts(threads: int) -> dict[str, object]:
    return {
        "commit": output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "threads_per_server": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "rustc": output("rustc", "--version"),
        "php": output("php", "-r", "echo PHP_VERSION;"),
        "nginx": output("/usr/sbin/nginx", "-v"),
        "wrk": output("wrk", "-v").partition("\n")[0],
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def output(*command: str) -> str:
    """What a command says, wherever it says it; empty when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip()
