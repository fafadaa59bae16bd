"""One report of a run, for people and for programs."""

import argparse
import datetime
import json
import statistics
import sys
from pathlib import Path

from suite import rate, table

# Behind this folder: it has a report.py, too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))
import machine  # noqa: E402  the same facts as in the reports of make bench

BASELINE = "bare actix-web"
TIMES = ("p50", "p90", "p99", "p999")


def machine_facts() -> dict[str, object]:
    facts = machine.facts(0)
    wanted = ("commit", "dirty", "cpu", "cores", "memory_mib", "kernel", "load_before", "wrk")
    return {key: facts[key] for key in wanted}


def errors(results: dict) -> list[str]:
    """What makes the figures void, by scenario."""
    found = []
    for name, runs in results["wrk"].items():
        counted = {kind: sum(run["errors"][kind] for run in runs) for kind in runs[0]["errors"]}
        if any(counted.values()):
            found.append(f"wrk, {name}: " + ", ".join(f"{count} x {kind}" for kind, count in counted.items() if count))
    if results["locust"]:
        found += [f"locust, {line}" for line in results["locust"]["failures"]]
    return found


def summary(results: dict) -> dict[str, dict]:
    """Medians over the rounds, and the ratio to the yardstick of the same rounds."""
    base = results["wrk"].get(BASELINE)
    found = {}
    for name, runs in results["wrk"].items():
        rates = [rate(run) for run in runs]
        found[name] = {
            "requests": sum(run["requests"] for run in runs),
            "per_second": round(statistics.median(rates)),
            "per_second_least": round(min(rates)),
            "per_second_most": round(max(rates)),
            "megabytes_per_second": round(statistics.median(r["bytes"] / r["duration_us"] for r in runs), 1),
            **{f"{time}_ms": round(statistics.median(run["latency_us"][time] for run in runs) / 1000, 2) for time in TIMES},
            "of_baseline": round(statistics.median(rate(r) / rate(b) for r, b in zip(runs, base)), 3) if base else None,
            "errors": sum(sum(run["errors"].values()) for run in runs),
        }
    return found


def lines(results: dict, options: argparse.Namespace) -> list[str]:
    """What the report says of wrk and Locust."""
    said = [
        f"{options.connections} connections, {options.rounds} rounds of {options.seconds} s in turn, medians.",
        "wrk asks as fast as it is answered: its figures are the most the stack takes, not what its users see.", "",
        "## wrk", "",
    ]
    head = ["", "req/s", "least to most", f"of {BASELINE}", "MB/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "errors"]
    body = []
    for name, found in summary(results).items():
        ratio = "" if found["of_baseline"] is None else f"{found['of_baseline']:.2f}"
        spread = f"{found['per_second_least']:,} to {found['per_second_most']:,}"
        times = [f"{found[f'{time}_ms']:.2f}" for time in TIMES]
        body.append([name, f"{found['per_second']:,}", spread, ratio, f"{found['megabytes_per_second']}", *times,
                     str(found["errors"])])
    said += table(head, body)
    if locust := results["locust"]:
        said += ["## Locust", "", f"{options.shape or f'{options.users} users'}; times in ms.", ""]
        head = ["", "requests", "failed", "req/s", "p50", "p95", "p99", "max"]
        said += table(head, [
            [row["name"], str(row["requests"]), str(row["failures"]), str(row["per_second"]),
             *(f"{row[key]:.0f}" if key in row else "" for key in ("p50", "p95", "p99", "max"))]
            for row in locust["rows"]
        ])
    return said


def heading(title: str, facts: dict, now: datetime.datetime) -> list[str]:
    dirty = " (dirty)" if facts["dirty"] else ""
    machine = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items())
    return [f"# {title}, {now:%Y-%m-%d}, commit {facts['commit']}{dirty}", "", f"{machine}.", ""]


def store(folder: Path, text: str, data: dict, options: argparse.Namespace, now: datetime.datetime) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text + "\n")
    # Where it is stored is no part of how it was measured.
    chosen = {key: value for key, value in vars(options).items() if key != "out"}
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in chosen.items()}
    data = {"date": now.isoformat(timespec="seconds"), "settings": settings, **data}
    (folder / "report.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
