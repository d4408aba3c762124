# Networks: float training, the 8-bit integer network, its accuracy.
# in: datasets/<dataset>.npz
# out: checkpoints/<network>.npz, networks/<network>.npz, quantization/<network>.csv, accuracy/<network>-evaluation.csv,
#      confusion/<network>.csv, accuracy.csv, published-accuracy.csv

# what quantize takes of the rest of the config: nothing unless it finetunes
QUANTIZED_FINETUNING = {"settings": None, "seed": None}
if config["quantization"]["finetuning_epochs"]:
    QUANTIZED_FINETUNING = {
        "settings": {
            **FINETUNING,
            "epochs": config["quantization"]["finetuning_epochs"],
        },
        "seed": config["seed"],
    }


rule train:
    input:
        dataset=prepared_dataset,
        teacher=lambda w: network_checkpoint(teacher(w)) if teacher(w) else [],
        initial=lambda w: (
            own_or_project(network_settings(w)["training"]["initial_weights"]) or []
        ),
    output:
        weights=f"{RESULTS}/checkpoints/{{network}}.npz",
        provenance=f"{RESULTS}/checkpoints/{{network}}.json",
    log:
        f"{RESULTS}/logs/train-{{network}}.log",
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=4000,
    params:
        library=library("train.py"),
        model_code=model_code,
        teacher_code=lambda w: teacher(w)
        and SOURCES.fingerprint(MODEL_FILES[teacher(w)]),
        network=trained_settings,
        teacher_model=lambda w: (
            config["networks"][teacher(w)]["model"] if teacher(w) else None
        ),
        seed=config["seed"],
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
    resources:
        mem_mb=3000,
    params:
        library=library("quantize.py"),
        model_code=model_code,
        model=lambda w: network_settings(w)["model"],
        classes=lambda w: network_settings(w)["classes"],
        normalisation=lambda w: network_settings(w)["normalisation"],
        quantization=config["quantization"],
        finetuning=QUANTIZED_FINETUNING["settings"],
        seed=QUANTIZED_FINETUNING["seed"],
    script:
        "../scripts/quantize.py"


# needs no scheme and no protocol, so any network of the config can be asked for by this file's name
rule evaluate:
    input:
        dataset=prepared_dataset,
        checkpoint=checkpoint_file,
        network=f"{RESULTS}/networks/{{network}}.npz",
        layers=f"{RESULTS}/quantization/{{network}}.csv",
    output:
        rows=f"{RESULTS}/accuracy/{{network}}-evaluation.csv",
        confusion=f"{RESULTS}/confusion/{{network}}.csv",
    log:
        f"{RESULTS}/logs/evaluate-{{network}}.log",
    threads: half_of_the_cores
    resources:
        computing=COMPUTING,
        mem_mb=3000,
    params:
        library=library("evaluate.py"),
        model_code=model_code,
        model=lambda w: network_settings(w)["model"],
        classes=lambda w: network_settings(w)["classes"],
        normalisation=lambda w: network_settings(w)["normalisation"],
    script:
        "../scripts/evaluate.py"


rule network_accuracy:
    input:
        dataset=prepared_dataset,
        evaluation=f"{RESULTS}/accuracy/{{network}}-evaluation.csv",
        network=f"{RESULTS}/networks/{{network}}.npz",
        policies=lambda w: [policy_file(w.network, *pair) for pair in EVALUATED],
        deployed=lambda w: [deployed_network(w.network, *pair) for pair in EVALUATED],
    output:
        f"{RESULTS}/accuracy/{{network}}.csv",
    log:
        f"{RESULTS}/logs/network_accuracy-{{network}}.log",
    threads: half_of_the_cores
    resources:
        computing=COMPUTING,
        mem_mb=3000,
    params:
        library=library("network_accuracy.py"),
        seed=config["seed"],
    script:
        "../scripts/network_accuracy.py"


rule accuracy:
    input:
        networks=expand(f"{RESULTS}/accuracy/{{network}}.csv", network=NETWORKS),
    output:
        report(
            f"{RESULTS}/accuracy.csv",
            caption="captions/accuracy.rst",
            category="Tables",
            labels={"table": "accuracy"},
        ),
    log:
        f"{RESULTS}/logs/accuracy.log",
    params:
        library=library("accuracy.py"),
    script:
        "../scripts/accuracy.py"


# of the networks with a published checkpoint; models/accuracy.csv is this file of the paper's study
rule published_accuracy:
    input:
        networks=[
            f"{RESULTS}/accuracy/{name}-evaluation.csv"
            for name, network in config["networks"].items()
            if network["checkpoint"]
        ],
    output:
        f"{RESULTS}/published-accuracy.csv",
    log:
        f"{RESULTS}/logs/published_accuracy.log",
    params:
        library=library("accuracy.py"),
    script:
        "../scripts/accuracy.py"
