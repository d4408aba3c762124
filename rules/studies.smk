# Experiments beside the comparison of the schemes: part of a study where run.studies names them, or asked for by name.
# in: networks/<network>.npz, quantization/<network>.csv, policies/<network>/darl-<packing>.json, datasets/<dataset>.npz
# out: repeated-queries.json, multiplication.csv, sensitivity.csv, published-sets.csv, wraps/<network>.csv,
#      sampling/<network>.csv, tolerance/<network>-<packing>.csv, figures of the last two


rule repeated_queries:
    output:
        f"{RESULTS}/repeated-queries.json",
    log:
        f"{RESULTS}/logs/repeated_queries.log",
    resources:
        mem_mb=1000,
    params:
        library=library("repeated_queries.py"),
        seed=config["seed"],
    script:
        "../scripts/repeated_queries.py"


rule multiplication:
    output:
        f"{RESULTS}/multiplication.csv",
    log:
        f"{RESULTS}/logs/multiplication.log",
    # all cores, so that nothing else runs while multiplications are timed
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=2000,
    params:
        library=library("multiplication.py"),
        multiplication=config["multiplication"],
    script:
        "../scripts/multiplication.py"


rule sensitivity:
    input:
        network=integer_network(SENSITIVITY_NETWORK),
        layers=f"{RESULTS}/quantization/{SENSITIVITY_NETWORK}.csv",
        profile=f"{RESULTS}/profile.json",
    output:
        f"{RESULTS}/sensitivity.csv",
    log:
        f"{RESULTS}/logs/sensitivity.log",
    resources:
        mem_mb=2000,
    params:
        library=library("sensitivity.py"),
        packings=config["run"]["packings"],
        selection=config["selection"],
        seed=config["seed"],
    script:
        "../scripts/sensitivity.py"


rule published_sets:
    input:
        paper=project("config/paper.yaml"),
        networks=expand(f"{RESULTS}/networks/{{network}}.npz", network=NETWORKS),
        profile=f"{RESULTS}/profile.json",
    output:
        f"{RESULTS}/published-sets.csv",
    log:
        f"{RESULTS}/logs/published_sets.log",
    resources:
        mem_mb=2000,
    params:
        library=library("published_sets.py"),
        networks=NETWORKS,
        packings=config["run"]["packings"],
        selection=config["selection"],
    script:
        "../scripts/published_sets.py"


rule wraps:
    input:
        dataset=prepared_dataset,
        network=f"{RESULTS}/networks/{{network}}.npz",
    output:
        f"{RESULTS}/wraps/{{network}}.csv",
    log:
        f"{RESULTS}/logs/wraps-{{network}}.log",
    threads: half_of_the_cores
    resources:
        computing=COMPUTING,
        mem_mb=3000,
    params:
        library=library("wraps.py"),
        images=config["tolerance"]["images"],
        seed=config["seed"],
    script:
        "../scripts/wraps.py"


rule sampling_study:
    input:
        network=f"{RESULTS}/networks/{{network}}.npz",
        policy=lambda w: policy_file(w.network, "darl", "coefficient"),
    output:
        table=f"{RESULTS}/sampling/{{network}}.csv",
        figures=multiext(
            f"{RESULTS}/figures/sampling-{{network}}", ".svg", ".png", ".pdf"
        ),
    log:
        f"{RESULTS}/logs/sampling_study-{{network}}.log",
    resources:
        mem_mb=1000,
    params:
        library=library("sampling_study.py"),
        sampling={
            key: value
            for key, value in config["sampling"].items()
            if key != "networks"
        },
        seed=config["seed"],
    script:
        "../scripts/sampling_study.py"


rule tolerance_study:
    input:
        dataset=prepared_dataset,
        network=f"{RESULTS}/networks/{{network}}.npz",
        policy=lambda w: policy_file(w.network, "darl", w.packing),
    output:
        table=f"{RESULTS}/tolerance/{{network}}-{{packing}}.csv",
        figures=multiext(
            f"{RESULTS}/figures/tolerance-{{network}}-{{packing}}",
            ".svg",
            ".png",
            ".pdf",
        ),
    log:
        f"{RESULTS}/logs/tolerance_study-{{network}}-{{packing}}.log",
    threads: half_of_the_cores
    resources:
        computing=COMPUTING,
        mem_mb=3000,
    params:
        library=library("tolerance_study.py"),
        tolerance={"images": config["tolerance"]["images"]},
        seed=config["seed"],
    script:
        "../scripts/tolerance_study.py"


# SPU's Cheetah beside ours; no part of any study: `make compare-peers` makes its environment and asks for it.
rule compare_peers:
    input:
        script="scripts/peers/cheetah.py",
        datasets=[
            f"{RESULTS}/datasets/{config['networks'][network]['dataset']}.npz"
            for network in config["peers"]["networks"]
        ],
        checkpoints=[
            network_checkpoint(network) for network in config["peers"]["networks"]
        ],
        networks=[integer_network(network) for network in config["peers"]["networks"]],
        layers=[
            f"{RESULTS}/quantization/{network}.csv"
            for network in config["peers"]["networks"]
        ],
        profile=f"{RESULTS}/profile.json",
    output:
        table=f"{RESULTS}/tables/peers.csv",
        markdown=f"{RESULTS}/tables/peers.md",
        latex=f"{RESULTS}/tables/peers.tex",
    log:
        f"{RESULTS}/logs/compare_peers.log",
    # all cores: nothing else runs beside a measurement
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=8000,
    params:
        library=library("compare_peers.py"),
        python=config["peers"]["python"],
        networks=config["peers"]["networks"],
        schemes=config["peers"]["schemes"],
        selection=config["selection"],
        models=[config["networks"][n]["model"] for n in config["peers"]["networks"]],
        classes=[config["networks"][n]["classes"] for n in config["peers"]["networks"]],
        settings={
            name: config["network_settings"][name]
            for name in config["peers"]["network_settings"]
        },
    script:
        "../scripts/compare_peers.py"
