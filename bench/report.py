"""From samples to a table, and to the targets that were met or missed."""

import statistics

MIB, GIB = 1 << 20, 1 << 30

# Case, way, figure, how it must relate to the number, what that is called.
TARGETS = [
    ("down-1", "sft", "rate_ratio", ">=", 1.4, "download, one stream: speed × nginx"),
    ("down-1", "sft", "cpu_ratio", "<=", 0.7, "download, one stream: CPU × nginx"),
    ("down-8", "sft", "rate_ratio", ">=", 1.4, "download, parallel: speed × nginx"),
    ("down-8", "sft", "cpu_ratio", "<=", 0.7, "download, parallel: CPU × nginx"),
    ("up-1", "sft process", "rate_ratio", ">=", 1.2, "upload, one stream: speed × nginx default"),
    ("up-8", "sft process", "rate_ratio", ">=", 1.2, "upload, parallel: speed × nginx default"),
    ("sealed-down", "sft sealed", "rate_ratio", ">=", 0.6, "download: sealed × plain"),
    ("sealed-up-1", "sft sealed", "rate_ratio", ">=", 0.85, "upload, one stream: sealed × plain"),
    ("sealed-up-8", "sft sealed", "rate_ratio", ">=", 0.85, "upload, parallel: sealed × plain"),
    ("small", "sft", "rate_ratio", ">=", 0.7, "4 KiB downloads: requests/s × nginx"),
]
PEAK_MIB = 48
SEALED_PEAK_MIB = 64


def summarise(cases, samples):
    """For each way of each case its median, least and most, and the ratio to the first: nginx."""
    rows = []
    for case in cases:
        unit, each = (1e6, GIB) if case.unit == "bytes" else (1, 10_000)
        base = None
        for way in case.ways:
            every = [s for s in samples if (s.case, s.way) == (case.key, way.name)]
            counted = [s for s in every if s.round > 0]
            rates = [s.amount / s.seconds / unit for s in counted]
            row = {
                "case": case.key,
                "way": way.name,
                "rate": statistics.median(rates),
                "least": min(rates),
                "most": max(rates),
                "cpu": statistics.median(s.cpu_seconds * each / s.amount for s in counted),
                "peak_mib": max(s.peak_bytes for s in every) / MIB,
                "others": statistics.median(s.others for s in counted),
            }
            base = base or row
            row["rate_ratio"] = row["rate"] / base["rate"]
            # Small files may cost less than a tick.
            row["cpu_ratio"] = row["cpu"] / base["cpu"] if base["cpu"] else None
            rows.append(row)
    return rows


def targets(rows):
    """What was to be reached: text, figure, whether it was."""
    found = {(row["case"], row["way"]): row for row in rows}
    results = []
    for case, way, field, relation, goal, what in TARGETS:
        figure = found.get((case, way), {}).get(field)
        if figure is not None:
            met = figure >= goal if relation == ">=" else figure <= goal
            target = f"{what} {relation} {goal}"
            results.append({"target": target, "figure": round(figure, 2), "met": met})
    for sealed, limit in [(False, PEAK_MIB), (True, SEALED_PEAK_MIB)]:
        ours = [r for r in rows if r["way"].startswith("sft") and (r["way"] == "sft sealed") == sealed]
        if not ours:
            continue
        most = max(ours, key=lambda row: row["peak_mib"])
        target = f"peak memory in MiB, most of all ({most['case']}, {most['way']}) < {limit}"
        met = most["peak_mib"] < limit
        results.append({"target": target, "figure": round(most["peak_mib"], 1), "met": met})
    return results


def print_table(cases, rows, results):
    for case in cases:
        speed, cpu = "MB/s", "CPU-s/GiB"
        if case.unit == "requests":
            speed, cpu = "requests/s", "CPU-s/10,000"
        print(f"\n{case.title}")
        titles = [speed, "min–max", "× first", cpu, "× first", "peak MiB", "others"]
        print_row("", titles)
        for row in rows:
            if row["case"] == case.key:
                print_row(row["way"], figures(row))
    print("\nTargets")
    for result in results:
        met = "met   " if result["met"] else "MISSED"
        print(f"  {met}  {result['target']}: {result['figure']}")


def print_row(name, texts):
    widths = [10, 17, 8, 13, 8, 9, 7]
    columns = [f"{text:>{width}}" for text, width in zip(texts, widths)]
    print(f"  {name:14}{' '.join(columns)}")


def figures(row):
    ratio = row["cpu_ratio"]
    return [
        f"{row['rate']:,.0f}",
        f"{row['least']:,.0f}–{row['most']:,.0f}",
        f"{row['rate_ratio']:.2f}",
        f"{row['cpu']:.2f}",
        "–" if ratio is None else f"{ratio:.2f}",
        f"{row['peak_mib']:.1f}",
        f"{row['others']:.0%}",
    ]
