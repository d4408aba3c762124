# Networks: float training.
# in: datasets/<dataset>.npz; out: checkpoints/<network>.npz and its provenance


rule train:
    input:
        library=library("train.py"),
        dataset=prepared_dataset,
    output:
        weights=f"{RESULTS}/checkpoints/{{network}}.npz",
        provenance=f"{RESULTS}/checkpoints/{{network}}.json",
    params:
        network=lambda w: network_settings(w),
        seed=config["seed"],
        state=lambda w: state_folder("train", w.network, [network_settings(w), config["seed"]]),
    log:
        f"{RESULTS}/logs/train-{{network}}.log",
    conda:
        "../environment.yml"
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=4000,
    script:
        "../scripts/train.py"
