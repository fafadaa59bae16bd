"""Troupe beside its peers on this machine: starts them all, measures them in turn, prints and stores a report.

Exit codes: 0 every figure that was asked for is met, 1 one is missed, or void as it could not be measured, 2 usage, 69 nothing could be
measured.
"""

import argparse
import datetime
import os
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import goals
import heal
import instructions
import machine
import memory
import misses
import policies
import relay
import report
import rounds
import scaling
import tiers
from asked import ALONE, HEAL, MISSES, POLICIES, RELAY, SCALING, TIERS, Asked
from caches import cache_peers
from load import LoadFailed
from peers import NotUp, Peer, Settings, all_peers
from rounds import Durations, say
from trials import ENOUGH

ROOT = machine.ROOT
FULL = Durations(rounds=5, warm_up=3, closed=4, open=5, many=8)
# Enough to see whether something is broken; too short for a figure that is quoted.
QUICK = Durations(rounds=3, warm_up=1, closed=1, open=1, many=3)
IDLE_CONNECTIONS = 2000
# Above this something else runs here, and what is measured is that.
BUSY_LOAD = 0.7
EXIT_UNAVAILABLE = 69
# Trials of each thing that heals in a quick run: too few for a percentile.
QUICK_TRIALS = 20


def everyone() -> list[Peer]:
    return [*all_peers(), *cache_peers()]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    names = [*(peer.name for peer in everyone()), *ALONE]
    parser.add_argument("--quick", action="store_true", help="minutes instead of half an hour; for a look, not for a figure")
    parser.add_argument("--only", metavar="PEER,...", help=f"only these, of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default: {FULL.rounds})")
    parser.add_argument("--threads", type=int, help="threads of each server and of the generator (default: one per core)")
    parser.add_argument("--no-instructions", action="store_true", help="do not count under callgrind, as with --quick")
    parser.add_argument("--bin-dir", type=Path, default=ROOT / "target" / "release", help="where the binaries are")
    parser.add_argument("--reports", type=Path, default=ROOT / "loadtests" / "reports", help="where reports are stored")
    parser.add_argument("--no-store", action="store_true", help="print only")
    chosen = parser.parse_args()
    chosen.peers = chosen.only.split(",") if chosen.only else names
    if unknown := sorted(set(chosen.peers) - set(names)):
        parser.error(f"no such peer: {', '.join(unknown)}; there are: {', '.join(names)}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds: at least 1")
    return chosen


def main() -> int:
    options = arguments()
    # A kill ends like Ctrl-C: through the `finally` that stops what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # 5,000 connections need as many descriptors, here and in every child.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    directory = Path(tempfile.mkdtemp(prefix="troupe-bench-"))
    # nginx and php-fpm give up root and must still find their files.
    directory.chmod(0o755)
    threads = options.threads or len(os.sched_getaffinity(0))
    settings = Settings(options.bin_dir.resolve(), directory, threads)
    peers = [peer for peer in everyone() if peer.name in options.peers]
    try:
        return compare(options, settings, peers)
    except KeyboardInterrupt:
        say("interrupted; nothing is stored")
        return 130
    finally:
        for peer in peers:
            peer.stop()
        shutil.rmtree(directory, ignore_errors=True)


def compare(options: argparse.Namespace, settings: Settings, peers: list[Peer]) -> int:
    durations = QUICK if options.quick else FULL
    if options.rounds:
        durations.rounds = options.rounds
    facts = machine.facts(settings.threads)
    if float(str(facts["load_before"])) > BUSY_LOAD:
        say(f"warning: the machine is busy (load {facts['load_before']}); these figures are not to be quoted")

    asked = Asked(frozenset(options.peers))
    at_rest: dict[str, memory.AtRest] = {}
    say("each peer by itself: memory at rest and per idle connection")
    for peer in [peer for peer in peers if not peer.hits_only]:
        try:
            peer.start(settings)
            at_rest[peer.name] = memory.measure_at_rest(peer, IDLE_CONNECTIONS)
        except (NotUp, OSError) as error:
            asked.lacks(peer.name, error)
        finally:
            peer.stop()

    running = []
    for peer in peers:
        if peer.name in asked.missing:
            continue
        try:
            peer.start(settings)
            running.append(peer)
        except NotUp as error:
            asked.lacks(peer.name, error)
    if not running and not set(ALONE) & set(options.peers):
        say("nothing to measure: no peer came up")
        return EXIT_UNAVAILABLE

    results = rounds.measure(running, durations, settings.threads, settings.bin_dir / "open-loop")
    peaks = {peer.name: memory.peaks(peer) for peer in running}
    counted, counted_by = count_instructions(options, settings, running)
    for peer in running:
        peer.stop()
    costs = asked.part(MISSES, lambda: misses.measure(settings, durations.rounds, durations.closed), {})
    binary = settings.bin_dir / "open-loop"
    beside = asked.part(RELAY, lambda: relay.measure(settings, binary, durations.rounds, durations.open), None)
    tiered = asked.part(TIERS, lambda: tiers.measure(settings, durations.rounds, durations.closed), None)
    ratios = asked.part(POLICIES, lambda: policies.measure(settings.bin_dir), [])
    healing = asked.part(HEAL, lambda: heal.measure(settings, QUICK_TRIALS if options.quick else ENOUGH), [])
    grown = asked.part(SCALING, lambda: scaling.measure(settings), [])

    run = report.Run(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        options={"quick": options.quick, "rounds": durations.rounds, "seconds_per_sample": durations.closed},
        machine=facts,
        peers=running,
        skipped=asked.missing,
        results=results,
        at_rest=at_rest,
        peaks=peaks,
        instructions=counted,
        instructions_by=counted_by,
        verdicts=goals.judge(asked, results, at_rest, costs, beside, tiered, ratios, grown, healing),
        costs=costs,
        beside=beside,
        tiered=tiered,
        ratios=ratios,
        scaling=grown,
        healing=healing,
    )
    print(report.markdown(run))
    if not options.no_store:
        # Figures of a tree that nobody can check out are told by their name.
        marks = "".join(mark for mark, holds in [("-dirty", facts["dirty"]), ("-quick", options.quick)] if holds)
        target = options.reports / f"{run.date[:10]}-{facts['commit']}{marks}"
        report.store(run, target)
        say(f"stored in {target}")
    return 0 if goals.met(run.verdicts) else 1


def count_instructions(
    options: argparse.Namespace, settings: Settings, running: list[Peer]
) -> tuple[dict[str, dict[str, float]], str]:
    counted: dict[str, dict[str, float]] = {}
    compiled = [peer for peer in running if peer.name in instructions.COUNTED]
    if instructions.perf_counts():
        for peer in compiled:
            counted[peer.name] = instructions.with_perf(peer, settings.threads)
        return counted, "perf, user space"
    if options.quick or options.no_instructions or not compiled:
        return counted, ""
    say(f"instructions, under callgrind: half a minute each of {', '.join(peer.name for peer in compiled)}")
    for peer in running:
        peer.stop()
    for peer in compiled:
        try:
            counted[peer.name] = instructions.with_callgrind(peer, settings)
        except (NotUp, LoadFailed, OSError, instructions.subprocess.SubprocessError) as error:
            say(f"    {peer.name}: not counted: {error}")
    return counted, "callgrind, user space"


if __name__ == "__main__":
    sys.exit(main())
