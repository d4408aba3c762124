"""Run every benchmark, print it beside its target and its yardstick, and write results/bench/bench.json."""

from __future__ import annotations

from pathlib import Path

from autoprivacy.bench.garbling import rates, relu_bytes
from autoprivacy.bench.homomorphic import ciphertexts, products, transforms
from autoprivacy.bench.inference import resnet32_offline, seven_cnet_offline
from autoprivacy.bench.lookups import lookups
from autoprivacy.bench.seal_yardstick import MISSING, is_installed
from autoprivacy.bench.timing import Result
from autoprivacy.storage import write_json
from autoprivacy.workflow.provenance import provenance

BENCHMARKS = (transforms, products, ciphertexts, rates, relu_bytes, lookups, seven_cnet_offline, resnet32_offline)
FOLDER = Path(__file__).parents[1] / "results" / "bench"
LINE = "{:32} {:>10} {:>8} {:>10}  {:4}"


def _line(name: str, result: Result) -> str:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g}"

    yardstick = number(result.yardstick) if is_installed() else "missing"
    return LINE.format(name, number(result.value), number(result.target), yardstick, result.unit)


def main() -> None:
    missing = "" if is_installed() else f"; {MISSING}"
    print(f"CPU time of one thread and bytes sent, less is better; yardstick: Microsoft SEAL{missing}")
    print(LINE.format("benchmark", "measured", "target", "yardstick", "unit"))
    results: dict[str, Result] = {}
    for benchmark in BENCHMARKS:
        for name, result in benchmark().items():
            results[name] = result
            print(_line(name, result), flush=True)
    write_json(FOLDER / "bench.json", {name: result.as_json() for name, result in results.items()})
    write_json(FOLDER / "provenance.json", provenance())
    print(f"written to {FOLDER / 'bench.json'}")


if __name__ == "__main__":
    main()
