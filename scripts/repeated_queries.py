"""What a client learns of a last layer's weights when it asks the same images again and again, by kind of policy."""

from typing import Any

from autoprivacy.search.repeated_queries import experiment
from autoprivacy.storage import write_json
from autoprivacy.workflow.logs import run_script
from autoprivacy.workflow.provenance import provenance

# Hidden values of the layers that are attacked; 7CNET's last layer reads 1,024. Outputs, and images asked about.
SIZES, CLASSES, IMAGES = (32, 128, 256), 10, 3


def main(snakemake: Any) -> None:
    seed = snakemake.params.seed
    result = experiment(SIZES, CLASSES, IMAGES, seed)
    write_json(snakemake.output[0], {**result, "provenance": provenance(seed=seed)})


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
