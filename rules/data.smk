# Data sets: found in a folder or downloaded, verified, unpacked.
# in: the folder of `data: folder` or AUTOPRIVACY_DATA, the committed sample, or a download
# out: datasets/<dataset>.npz


rule prepare_dataset:
    output:
        f"{RESULTS}/datasets/{{dataset}}.npz",
    log:
        f"{RESULTS}/logs/prepare_dataset-{{dataset}}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
    params:
        library=library("prepare_dataset.py"),
        sample_folder="data",
        download_to="data/downloads",
    script:
        "../scripts/prepare_dataset.py"
