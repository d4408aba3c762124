# Networks: float training, the 8-bit integer network, its accuracy.
# in: datasets/<dataset>.npz
# out: checkpoints/<network>.npz, networks/<network>.npz, quantization/<network>.csv, accuracy.csv


rule train:
    input:
        dataset=prepared_dataset,
    output:
        weights=f"{RESULTS}/checkpoints/{{network}}.npz",
        provenance=f"{RESULTS}/checkpoints/{{network}}.json",
    log:
        f"{RESULTS}/logs/train-{{network}}.log",
    conda:
        "../environment.yml"
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=4000,
    params:
        library=library("train.py"),
        model_code=model_code,
        network=network_settings,
        seed=config["seed"],
        state=lambda w: state_folder(
            "train", w.network, [network_settings(w), config["seed"]]
        ),
    script:
        "../scripts/train.py"


rule quantize:
    input:
        dataset=prepared_dataset,
        checkpoint=checkpoint_file,
    output:
        network=f"{RESULTS}/networks/{{network}}.npz",
        layers=f"{RESULTS}/quantization/{{network}}.csv",
    log:
        f"{RESULTS}/logs/quantize-{{network}}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=3000,
    params:
        library=library("quantize.py"),
        model_code=model_code,
        model=lambda w: network_settings(w)["model"],
        classes=lambda w: network_settings(w)["classes"],
        quantization=config["quantization"],
    script:
        "../scripts/quantize.py"


rule network_accuracy:
    input:
        dataset=prepared_dataset,
        checkpoint=checkpoint_file,
        network=f"{RESULTS}/networks/{{network}}.npz",
        policies=lambda w: [policy_file(w.network, *pair) for pair in FIRST_CONTENDERS],
        deployed=lambda w: [
            deployed_network(w.network, scheme) for scheme, _ in FIRST_CONTENDERS
        ],
    output:
        f"{RESULTS}/accuracy/{{network}}.csv",
    log:
        f"{RESULTS}/logs/network_accuracy-{{network}}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=3000,
    params:
        library=library("network_accuracy.py"),
        model_code=model_code,
        model=lambda w: network_settings(w)["model"],
        classes=lambda w: network_settings(w)["classes"],
        seed=config["seed"],
    script:
        "../scripts/network_accuracy.py"


rule accuracy:
    input:
        networks=expand(f"{RESULTS}/accuracy/{{network}}.csv", network=NETWORKS),
    output:
        f"{RESULTS}/accuracy.csv",
    log:
        f"{RESULTS}/logs/accuracy.log",
    conda:
        "../environment.yml"
    params:
        library=library("accuracy.py"),
    script:
        "../scripts/accuracy.py"
