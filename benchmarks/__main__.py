"""The command line: `python -m benchmarks cpu | gpu | guard | report`."""

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import contenders, cpu, gpu, harness, machine, measures, report
from benchmarks.settings import PRECISIONS
from xpnet.errors import CheckpointError
from xpnet.files.writer import check, write_text

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="xpnet beside its peers, in one run.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, plan, known in (("cpu", cpu, contenders.CPU), ("gpu", gpu, contenders.GPU)):
        one = commands.add_parser(name, help=(plan.__doc__ or "").partition(": ")[2])
        one.add_argument("--quick", action="store_true", help="a tenth of the data, two rounds: to see that it works")
        one.add_argument("--contenders", nargs="+", default=[], choices=[c.name for c in known], metavar="NAME")
        parts = ", ".join(plan.PARTS)
        one.add_argument("--parts", nargs="+", default=list(plan.PARTS), choices=plan.PARTS, metavar="NAME", help=parts)
        one.add_argument("--repeats", type=int, help="rounds, the first epoch of each contender not counted")
        goal = f"{100 * plan.GOAL:g} %%"
        one.add_argument("--seeds", type=int, help=f"processes that each contender trains to {goal} of the test images")
        one.add_argument("--threads", type=int, help="threads of every library (default: each library's own choice)")
        one.add_argument("--peer-python", action="append", default=[], metavar="PATH", help="where peers are installed")
        one.add_argument("--json", type=Path, metavar="PATH", help=f"default: benchmarks/{name}/DATE.json")
        if name == "cpu":
            one.add_argument("--full", action="store_true", help="all nets, batches and optimizers")
            one.add_argument("--nets", nargs="+", default=[], type=net, metavar="784-128-10")
            one.add_argument("--optimizers", nargs="+", default=[], choices=cpu.OPTIMIZERS, metavar="NAME")
            one.set_defaults(device="cpu")
        else:
            nets = list(dict.fromkeys(task.net for task in gpu.TASKS))
            one.add_argument("--nets", nargs="+", default=[], choices=nets, metavar="NAME", help=", ".join(nets))
            one.add_argument("--precisions", nargs="+", default=[], choices=PRECISIONS, help="of the products")
            one.add_argument("--device", default="cuda")
        one.add_argument("--batches", nargs="+", type=int, default=[])
    guard = commands.add_parser("guard", help="counts that do not depend on the machine's mood, against their limits")
    guard.add_argument("--update", action="store_true", help="make the present counts the limits")
    page = commands.add_parser("report", help="write Markdown, picture and the README's part from a run's JSON")
    page.add_argument("path", type=Path)
    return parser.parse_args(words)


def net(text: str) -> str:
    """Read a net, and leave it as it is."""
    cpu.sizes(text)
    return text


def run(args: argparse.Namespace) -> str | None:
    """Measure and write; return what went wrong."""
    plan, known = (cpu, contenders.CPU) if args.command == "cpu" else (gpu, contenders.GPU)
    found = machine.gpus()
    if args.device == "cuda" and not found:
        return "no CUDA device answered on this machine: python -m benchmarks gpu needs one"
    date = datetime.date.today().isoformat()
    path = args.json or HERE / args.command / f"{date}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    check(path)
    chosen = contenders.choose(known, args.contenders)
    with harness.bench(chosen, [sys.executable, *args.peer_python], machine.threads(args.threads)) as bench:
        results: dict[str, Any] = {
            "kind": args.command,
            "date": date,
            "quick": args.quick,
            "machine": machine.describe(args.threads),
        }
        results |= {"versions": measures.versions(bench), "missing": bench.missing}
        if args.device == "cuda":
            results["machine"]["gpu"] = found[0]
        results |= kept(path, results, [part for part in plan.PARTS if part not in args.parts])
        for name, reason in bench.missing.items():
            bench.log(f"missing: {name} ({reason})")
        plan.measure(bench, args, results, lambda: save(results, path))
        save(results, path)
    for file in [path, *report.write(path, README)]:
        print(file)
    return None


def kept(path: Path, results: dict[str, Any], parts: list[str]) -> dict[str, Any]:
    """Return what the file has of parts that are not measured now, if all else was the same: day, machine, versions."""
    if not path.exists():
        return {}
    old = json.loads(path.read_text(encoding="utf-8"))

    def of(run: dict[str, Any]) -> list[Any]:
        machine = {name: value for name, value in run["machine"].items() if name != "load before"}
        return [machine, *(run[name] for name in ("kind", "date", "quick"))]

    versions = old["versions"] | results["versions"]
    if of(old) != of(results) or versions != results["versions"] | old["versions"]:
        return {}
    return {"versions": versions} | {name: old[name] for name in ("goal", *parts) if name in old}


def save(results: dict[str, Any], path: Path) -> None:
    """Write what has been measured so far."""
    write_text(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """Do what the command line says."""
    args = arguments()
    try:
        if args.command == "report":
            for file in report.write(args.path, README):
                print(file)
        elif args.command == "guard":
            from benchmarks import guard

            sys.exit(guard.check(args.update))
        else:
            sys.exit(run(args))
    except (CheckpointError, FileNotFoundError, IsADirectoryError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
