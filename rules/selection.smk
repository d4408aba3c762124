# Parameter selection: the hardware profile, the rule-based schemes, the searches, finetuning with their errors.
# in: networks/<network>.npz, quantization/<network>.csv
# out: profile.json, latency/*.csv, figures/latency.*, policies/<network>/<scheme>-<packing>.json,
#      search/<network>/<scheme>-<packing>.csv, networks/<network>-<scheme>-<packing>.npz, comparison/<network>/<seed>.csv,
#      tables/search-comparison.csv, figures/search-comparison.*


rule profile_hardware:
    input:
        profile=config["hardware"]["profile"] or [],
    output:
        f"{RESULTS}/profile.json",
    log:
        f"{RESULTS}/logs/profile_hardware.log",
    # all cores, so that nothing else runs while operations are timed
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=2000,
    params:
        library=library("profile_hardware.py"),
        hardware=config["hardware"],
    script:
        "../scripts/profile_hardware.py"


rule select_parameters:
    input:
        network=f"{RESULTS}/networks/{{network}}.npz",
        layers=f"{RESULTS}/quantization/{{network}}.csv",
        profile=f"{RESULTS}/profile.json",
    output:
        policy_file("{network}", "{scheme}", "{packing}"),
    log:
        f"{RESULTS}/logs/select_parameters-{{network}}-{{scheme}}-{{packing}}.log",
    wildcard_constraints:
        scheme=r"delphi|delphi-worst-case|darl|autoprivacy\+",
    resources:
        mem_mb=2000,
    params:
        library=library("select_parameters.py"),
        selection=config["selection"],
    script:
        "../scripts/select_parameters.py"


rule search:
    input:
        dataset=prepared_dataset,
        network=f"{RESULTS}/networks/{{network}}.npz",
        layers=f"{RESULTS}/quantization/{{network}}.csv",
        profile=f"{RESULTS}/profile.json",
        darl=policy_file("{network}", "darl", "{packing}"),
    output:
        policy=f"{RESULTS}/search/{{network}}/{{scheme}}-{{packing}}.json",
        history=f"{RESULTS}/search/{{network}}/{{scheme}}-{{packing}}.csv",
    log:
        f"{RESULTS}/logs/search-{{network}}-{{scheme}}-{{packing}}.log",
    wildcard_constraints:
        scheme="autoprivacy|tolerant",
    threads: half_of_the_cores
    resources:
        computing=COMPUTING,
        mem_mb=4000,
    params:
        library=library("search.py"),
        search=scheme_search,
        finetuning=FINETUNING,
        selection=config["selection"],
        seed=config["seed"],
    script:
        "../scripts/search.py"


# Every strategy on the problem of tolerant, a job for each seed; no part of the whole study, ask for it by name:
# snakemake --cores 2 search_comparison
rule network_search_comparison:
    input:
        dataset=prepared_dataset,
        network=f"{RESULTS}/networks/{{network}}.npz",
        layers=f"{RESULTS}/quantization/{{network}}.csv",
        profile=f"{RESULTS}/profile.json",
        darl=lambda w: policy_file(w.network, "darl", "coefficient"),
    output:
        f"{RESULTS}/comparison/{{network}}/{{seed}}.csv",
    log:
        f"{RESULTS}/logs/search_comparison-{{network}}-{{seed}}.log",
    wildcard_constraints:
        seed=r"\d+",
    threads: half_of_the_cores
    resources:
        computing=COMPUTING,
        mem_mb=4000,
    params:
        library=library("network_search_comparison.py"),
        search=strategy_comparison,
        selection=config["selection"],
        first_seed=config["seed"],
    script:
        "../scripts/network_search_comparison.py"


rule search_comparison:
    input:
        seeds=COMPARISONS,
    output:
        table=report(
            f"{RESULTS}/tables/search-comparison.csv",
            caption="captions/search_comparison.rst",
            category="Tables",
            labels={"table": "search strategies"},
        ),
        figure=multiext(f"{RESULTS}/figures/search-comparison", ".svg", ".png", ".pdf"),
    log:
        f"{RESULTS}/logs/search_comparison.log",
    resources:
        mem_mb=1000,
    params:
        library=library("search_comparison.py"),
    script:
        "../scripts/search_comparison.py"


rule finetune:
    input:
        dataset=prepared_dataset,
        network=f"{RESULTS}/networks/{{network}}.npz",
        policy=f"{RESULTS}/search/{{network}}/{{scheme}}-{{packing}}.json",
    output:
        network=f"{RESULTS}/networks/{{network}}-{{scheme}}-{{packing}}.npz",
        policy=policy_file("{network}", "{scheme}", "{packing}"),
    log:
        f"{RESULTS}/logs/finetune-{{network}}-{{scheme}}-{{packing}}.log",
    wildcard_constraints:
        scheme="autoprivacy|tolerant",
    threads: half_of_the_cores
    resources:
        computing=COMPUTING,
        mem_mb=4000,
    params:
        library=library("finetune.py"),
        finetuning=FINETUNING,
        images=config["finetuning"]["images"],
        seed=config["seed"],
    script:
        "../scripts/finetune.py"


# Not part of `all`: `snakemake latency_comparison` compares predictions with measured layers.
COMPARED = [
    {
        "name": name,
        "model": config["networks"][name]["model"],
        "classes": config["networks"][name]["classes"],
        "trained": bool(config["networks"][name]["checkpoint"]),
    }
    for name in config["latency_comparison"]["networks"] or NETWORKS
]


rule latency_comparison:
    input:
        profile=f"{RESULTS}/profile.json",
        # of trained networks the weights and their range, of others the image's shape
        networks=[integer_network(n["name"]) for n in COMPARED if n["trained"]],
        layers=[
            f"{RESULTS}/quantization/{n['name']}.csv" for n in COMPARED if n["trained"]
        ],
        datasets=[dataset_of(n["name"]) for n in COMPARED if not n["trained"]],
    output:
        layers=f"{RESULTS}/latency/layers.csv",
        summary=report(
            f"{RESULTS}/latency/summary.csv",
            caption="captions/latency.rst",
            category="Tables",
            labels={"table": "predicted and measured latency"},
        ),
        figures=multiext(f"{RESULTS}/figures/latency", ".svg", ".png", ".pdf"),
    log:
        f"{RESULTS}/logs/latency_comparison.log",
    # all cores, so that nothing else runs while layers are timed
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=4000,
    params:
        library=library("latency_comparison.py"),
        model_code=SOURCES.fingerprint(
            sorted({file for n in COMPARED for file in MODEL_FILES[n["name"]]})
        ),
        networks=COMPARED,
        packings=config["latency_comparison"]["packings"],
        repeats=config["latency_comparison"]["repeats"],
        selection=config["selection"],
    script:
        "../scripts/latency_comparison.py"
