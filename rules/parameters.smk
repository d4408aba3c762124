# The target parameters_table: every choice of parameters side by side, and what each idea is worth.
# in: networks/<network>.npz, quantization/<network>.csv (random weights where a network is not trained), profile.json
# out: parameters/<network>.csv, tables/parameter-choices.csv and .md, tables/ablation.csv and .md,
#      figures/ablation-<network>.*

TABLE = config["parameters_table"]
TABLE_NETWORKS = TABLE["networks"] or NETWORKS


rule quantize_random:
    input:
        dataset=prepared_dataset,
    output:
        network=f"{RESULTS}/networks/{{network}}-random.npz",
        layers=f"{RESULTS}/quantization/{{network}}-random.csv",
    log:
        f"{RESULTS}/logs/quantize_random-{{network}}.log",
    resources:
        mem_mb=3000,
    params:
        library=library("quantize_random.py"),
        model_code=model_code,
        model=lambda w: network_settings(w)["model"],
        classes=lambda w: network_settings(w)["classes"],
        normalisation=lambda w: network_settings(w)["normalisation"],
        # nothing is learned, so there is nothing to adapt to 8 bits either
        quantization={**config["quantization"], "finetuning_epochs": 0},
        seed=config["seed"],
    script:
        "../scripts/quantize_random.py"


rule parameter_choices:
    input:
        network=lambda w: f"{RESULTS}/networks/{table_stem(w)}.npz",
        layers=lambda w: f"{RESULTS}/quantization/{table_stem(w)}.csv",
        profile=TABLE["profile"] or f"{RESULTS}/profile.json",
    output:
        f"{RESULTS}/parameters/{{network}}.csv",
    log:
        f"{RESULTS}/logs/parameter_choices-{{network}}.log",
    resources:
        mem_mb=2000,
    params:
        library=library("parameter_choices.py"),
        weights=lambda w: table_weights(w.network),
        selection=config["selection"],
        table={key: TABLE[key] for key in TABLE if key not in ("networks", "profile")},
    script:
        "../scripts/parameter_choices.py"


rule parameters_table:
    input:
        choices=expand(f"{RESULTS}/parameters/{{network}}.csv", network=TABLE_NETWORKS),
    output:
        choices=f"{RESULTS}/tables/parameter-choices.csv",
        choices_markdown=f"{RESULTS}/tables/parameter-choices.md",
        ablation=report(
            f"{RESULTS}/tables/ablation.csv",
            caption="captions/ablation.rst",
            category="Tables",
            labels={"table": "what each idea is worth"},
        ),
        ablation_markdown=f"{RESULTS}/tables/ablation.md",
        figures=expand(
            f"{RESULTS}/figures/ablation-{{network}}.{{format}}",
            network=TABLE_NETWORKS,
            format=["svg", "png", "pdf"],
        ),
    log:
        f"{RESULTS}/logs/parameters_table.log",
    resources:
        mem_mb=1000,
    params:
        library=library("parameters_table.py"),
    script:
        "../scripts/parameters_table.py"
