# Report: tables, figures and one page, made from result files alone.
# in: measurements, policies, accuracy, quantization, search, profile; out: tables/, figures/, report.html


rule tables:
    input:
        measurements=[
            measurement_file(network, *pair, setting)
            for network in NETWORKS
            for setting in config["measure"]["network_settings"]
            for pair in CONTENDERS
        ],
        policies=[
            policy_file(network, *pair) for network in NETWORKS for pair in CHOICES
        ],
        accuracy=f"{RESULTS}/accuracy.csv",
    output:
        table2=f"{RESULTS}/tables/table2.csv",
        markdown=f"{RESULTS}/tables/table2.md",
        parameters=f"{RESULTS}/tables/parameters.csv",
    log:
        f"{RESULTS}/logs/tables.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=500,
    params:
        library=library("tables.py"),
    script:
        "../scripts/tables.py"


rule figures:
    input:
        measurements=rules.tables.input.measurements,
        policies=rules.tables.input.policies,
        search=[
            f"{RESULTS}/search/{network}/{scheme}-{packing}.csv"
            for network in NETWORKS
            for scheme, packing in SEARCHES
        ],
    output:
        expand(
            f"{RESULTS}/figures/{{figure}}.{{format}}",
            figure=[
                "breakdown",
                *(
                    ["network-settings"]
                    if len(config["measure"]["network_settings"]) > 1
                    else []
                ),
                *expand("parameters-{network}", network=NETWORKS),
                *[
                    f"search-{network}-{scheme}-{packing}"
                    for network in NETWORKS
                    for scheme, packing in SEARCHES
                ],
            ],
            format=["svg", "png", "pdf"],
        ),
    log:
        f"{RESULTS}/logs/figures.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=1000,
    params:
        library=library("figures.py"),
    script:
        "../scripts/figures.py"


rule report:
    input:
        template="scripts/autoprivacy/report/template.html.j2",
        paper="config/paper.yaml",
        measurements=rules.tables.input.measurements,
        policies=rules.tables.input.policies,
        accuracy=f"{RESULTS}/accuracy.csv",
        quantization=expand(
            f"{RESULTS}/quantization/{{network}}.csv",
            network=NETWORKS,
        ),
        search=rules.figures.input.search,
        profile=f"{RESULTS}/profile.json",
        figures=rules.figures.output,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=500,
    params:
        library=library("report.py"),
        study=config["study"],
    script:
        "../scripts/report.py"
