"""How long a run will take, said before it starts: its steps, and the line that `cli.study_time` makes of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoprivacy.data.sources import Counts

DIGEST = re.compile(r"'?[0-9a-f]{16}'?")  # a param that is one tells code, not how much there is to do


@dataclass(frozen=True)
class Step:
    """A job: its rule, the values of its wildcards, its threads, and the seconds that it took before (None: never)."""

    rule: str
    wildcards: Mapping[str, str]
    threads: int = 1
    before: float | None = None


def steps_of(workflow: Any) -> list[Step]:
    """The jobs that a Snakemake workflow is about to run."""
    dag = workflow.dag
    return [
        Step(job.rule.name, dict(job.wildcards.items()), job.threads, _before(dag.workflow.persistence, job))
        for job in dag.needrun_jobs()
        if job.rule.name != "all"
    ]


def _before(persistence: Any, job: Any) -> float | None:
    """Seconds that a job took when it was last done here with the same settings; code may have changed."""
    record = persistence.metadata(job.output[0])
    if record is None or not (record.starttime and record.endtime):
        return None
    change = persistence.params_changed(job)
    if not all(DIGEST.fullmatch(str(param)) for param in change.only_old | change.only_new):
        return None
    return float(record.endtime - record.starttime)


def announcement(
    steps: Sequence[Step], config: Mapping[str, Any], counts: Mapping[str, Counts | None], cores: int
) -> str:
    """What a run will take, in one line; nothing where it makes data sets or a report alone, which takes seconds.

    It is computed in a process of its own, since the sizes of networks need torch.

    Args:
        steps: of `steps_of`.
        config: the completed configuration.
        counts: of data sets by name, as `data.sources.counts` gives them.
        cores: of the run.
    """
    if not any("network" in step.wildcards for step in steps):
        return ""
    given = {
        "steps": [asdict(step) for step in steps],
        "config": config,
        "counts": {name: count and asdict(count) for name, count in counts.items()},
        "cores": cores,
    }
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "autoprivacy.cli.study_time"]
    run = subprocess.run(command, input=json.dumps(given), env=environment, capture_output=True, text=True, check=False)
    return run.stdout.strip() or "How long this run takes is not known."
