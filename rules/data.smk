# Data sets: found in a folder or downloaded, verified, unpacked.
# in: the folder of `data: folder` or AUTOPRIVACY_DATA, the committed sample, a download, or an entry of `datasets`
# out: datasets/<dataset>.npz


rule prepare_dataset:
    input:
        arrays=lambda w: own_dataset(w).get("npz", []),
    output:
        f"{RESULTS}/datasets/{{dataset}}.npz",
    log:
        f"{RESULTS}/logs/prepare_dataset-{{dataset}}.log",
    resources:
        mem_mb=2000,
    params:
        library=library("prepare_dataset.py"),
        sample_folder=project("data"),
        download_to=project("data/downloads"),
        source=lambda w: own_dataset(w) or None,
        images={split: config["data"][f"{split}_images"] for split in ("train", "test")},
        # images of a folder are no inputs one by one: there may be a great many
        listing=lambda w: folder_listing(own_dataset(w).get("folder")),
    script:
        "../scripts/prepare_dataset.py"
