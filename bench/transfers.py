#!/usr/bin/env python3
"""Smart File Transfer and nginx side by side, in one run, on loopback. See bench/README.md."""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Callable

from report import print_table, summarise, targets
from servers import TICKS, BenchError, Server
from work import FULL, GIB, PARALLEL, QUICK, Bench, human

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass
class Way:
    """One of those that a case compares. `work` gives seconds and the amount moved."""

    name: str
    server: Server
    work: Callable


SEALED = {"sft plain": "big.bin", "sft sealed": "sealed.bin"}


@dataclass
class Case:
    key: str
    title: str
    ways: list
    unit: str = "bytes"


@dataclass
class Sample:
    case: str
    way: str
    round: int
    seconds: float
    amount: int
    cpu_seconds: float
    peak_bytes: int
    others: float  # share of the machine that neither server nor clients had


def make_cases(bench, only):
    """What is measured, in this order. All are compared with the first way of a case."""
    big, mid, both = bench.sizes.big, bench.sizes.mid, {"nginx": bench.nginx, "sft": bench.process}
    one, many = human(big), f"{PARALLEL} × {human(mid)}"
    cases = []
    if only in (None, "down"):
        mids = [f"mid-{i}.bin" for i in range(PARALLEL)]
        for key, title, names, size in [("1", one, ["big.bin"], big), ("8", many, mids, mid)]:
            ways = [Way(n, s, partial(bench.download, s, names, size)) for n, s in both.items()]
            cases.append(Case(f"down-{key}", f"Download, {title}", ways))
    if only in (None, "up"):
        rivals = [
            ("nginx", bench.nginx, bench.put),
            ("nginx 1m", bench.nginx_1m, bench.put),
            ("sft process", bench.process, bench.put),
            ("sft power", bench.power, bench.put),
            ("sft multipart", bench.process, bench.post),
        ]
        for key, title, source, count in [("1", one, "big", 1), ("8", many, "mid", PARALLEL)]:
            ways = [Way(n, s, partial(send, s, source, count)) for n, s, send in rivals]
            cases.append(Case(f"up-{key}", f"Upload, {title}", ways))
    if only in (None, "sealed"):
        ways = [Way(n, bench.process, partial(bench.download, bench.process, [f], big)) for n, f in SEALED.items()]
        cases.append(Case("sealed-down", f"Download, {one}, ours sealed and plain", ways))
        for key, title, source, count in [("1", one, "big", 1), ("8", many, "mid", PARALLEL)]:
            sends = [("sft plain", bench.put), ("sft sealed", bench.put_sealed)]
            ways = [Way(n, bench.process, partial(f, bench.process, source, count)) for n, f in sends]
            cases.append(Case(f"sealed-up-{key}", f"Upload, {title}, ours sealed and plain", ways))
    if only in (None, "small") and bench.wrk:
        ways = [Way(n, s, partial(bench.small_requests, s)) for n, s in both.items()]
        cases.append(Case("small", "Download, 4 KiB, 16 connections kept alive", ways, "requests"))
    return cases


def measure(bench, case, way, number):
    """One sample: the work is done, and what the server used for it is read from /proc."""
    if "up" in case.key:
        bench.warm_memory()
    way.server.reset_peak()
    before = (way.server.cpu_seconds(), own_cpu(), machine_cpu(), time.monotonic())
    seconds, amount = way.work()
    time.sleep(0.05)  # what is cleaned up after the answer counts too
    cpu = way.server.cpu_seconds() - before[0]
    elapsed = (time.monotonic() - before[3]) * os.cpu_count()
    others = machine_cpu() - before[2] - cpu - (own_cpu() - before[1])
    peak = way.server.peak_bytes()
    return Sample(case.key, way.name, number, seconds, amount, cpu, peak, max(0, others / elapsed))


def own_cpu():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine_cpu():
    fields = [int(field) for field in Path("/proc/stat").read_text().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS  # without idle and iowait


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("binary", nargs="?", default=REPOSITORY / "target/release/sft", type=Path)
    add("--rounds", type=int, help="the first is not counted (6, with --quick 2)")
    add("--quick", action="store_true", help="small files: shows that it works, not how fast")
    add("--only", choices=["down", "up", "sealed", "small"])
    add("--json", type=Path, metavar="FILE", help="write every sample and the summary there")
    add("--dir", default=tempfile.gettempdir(), help="where files go: on a disk (%(default)s)")
    add("--wrk", default="wrk", help="the wrk program (%(default)s)")
    args = parser.parse_args()
    args.binary = args.binary.resolve()  # not looked for in PATH
    args.rounds = args.rounds or (2 if args.quick else 6)
    if args.rounds < 2:
        parser.error("--rounds takes a number from 2: the first round is not counted")
    return args


def check_machine(args, sizes):
    """What would spoil the run is told before it begins. Gives the wrk to use, if there is one."""
    if not args.binary.is_file():
        raise BenchError(f"there is no {args.binary}: cargo build --release, or name the binary")
    if not shutil.which("curl"):
        raise BenchError("curl is needed")
    if not os.path.isdir(args.dir):
        raise BenchError(f"--dir: {args.dir} is no directory")
    free, where = shutil.disk_usage(args.dir).free, args.dir
    print(f"needs {sizes.disk / GIB:.1f} GiB of disk in {where}, where {free / GIB:.1f} are free")
    if free < sizes.disk:
        raise BenchError(f"not enough room in {where}: choose another directory with --dir")
    stat = subprocess.run(["stat", "-fc", "%T", where], capture_output=True, text=True, timeout=10)
    kind = stat.stdout.strip()
    if kind == "tmpfs":
        print(f"warning: {where} is in memory: uploads mean nothing there; name a disk with --dir")
    memory = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    if memory and int(memory[1]) << 10 < sizes.disk:
        print("warning: memory does not hold all files: downloads will measure the disk")
    wrk = shutil.which(args.wrk)
    if not wrk and args.only in (None, "small"):
        told = f"there is no {args.wrk} (Debian: apt-get install wrk)"
        if args.only == "small":
            raise BenchError(told)
        print(f"warning: {told}: 4 KiB requests are not measured")
    return wrk, kind


def run(args):
    sizes = QUICK if args.quick else FULL
    wrk, kind = check_machine(args, sizes)
    with contextlib.ExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix="sft-bench-", dir=args.dir)
        directory = Path(stack.enter_context(directory)).resolve()
        bench = Bench(stack, directory, sizes, args.binary, wrk)
        version = [args.binary, "--version"]
        version = subprocess.run(version, capture_output=True, text=True, timeout=10)
        machine = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
            "file_system": kind,
            "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
            "sft": version.stdout.strip(),
            "nginx": bench.nginx_version,
            "rounds": args.rounds,
        }
        print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
        bench.prepare()
        cases = make_cases(bench, args.only)
        samples = []
        for number in range(args.rounds):
            for case in cases:
                for way in case.ways:
                    samples.append(measure(bench, case, way, number))
                tell_progress(case, number, args.rounds, samples[-len(case.ways) :])
    rows = summarise(cases, samples)
    results = targets(rows)
    print_table(cases, rows, results)
    if args.quick:
        print("These sizes are too small to tell anything: --quick shows that the script works.")
    if args.json:
        data = {
            "machine": machine,
            "sizes": asdict(sizes),
            "samples": [asdict(sample) for sample in samples],
            "summary": rows,
            "targets": results,
        }
        args.json.write_text(json.dumps(data, indent=1) + "\n")


def tell_progress(case, number, rounds, samples):
    unit = 1e6 if case.unit == "bytes" else 1
    rates = [f"{sample.way} {sample.amount / sample.seconds / unit:,.0f}" for sample in samples]
    dropped = "" if number else " (not counted)"
    line = f"{number + 1}/{rounds} {case.title}{dropped}: {', '.join(rates)}"
    print(line, file=sys.stderr, flush=True)


def main():
    # Told to stop, it leaves by way of its clean-up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    args = arguments()
    try:
        run(args)
    except BenchError as error:
        sys.exit(f"transfers.py: {error}")
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"transfers.py: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
