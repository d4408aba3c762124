# Data sets: found in a folder or downloaded, verified, unpacked.
# in: the folder of `data: folder` or AUTOPRIVACY_DATA, the committed sample, a download, or an entry of `datasets`
# out: datasets/<dataset>.npz, datasets/<dataset>/<height>-<width>-<channels>.npz


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


rule fit_dataset:
    input:
        f"{RESULTS}/datasets/{{dataset}}.npz",
    output:
        f"{RESULTS}/datasets/{{dataset}}/{{height}}-{{width}}-{{channels}}.npz",
    log:
        f"{RESULTS}/logs/fit_dataset-{{dataset}}-{{height}}-{{width}}-{{channels}}.log",
    wildcard_constraints:
        height=r"\d+|own",
        width=r"\d+|own",
        channels="1|3|own",
    resources:
        mem_mb=3000,
    params:
        library=library("fit_dataset.py"),
        wanted=lambda w: {
            key: None if getattr(w, key) == "own" else int(getattr(w, key))
            for key in ("height", "width", "channels")
        },
    script:
        "../scripts/fit_dataset.py"
