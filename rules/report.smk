# Report: tables, figures, a verdict on every claim and one page, made from result files alone.
# in: measurements, policies, accuracy, quantization, search, profile, the experiments of run.studies
# out: tables/, figures/, claims.csv, claims.md, claims.tex, report.html

# Every result file of the study by what it is; what run.studies leaves out is empty.
EVIDENCE = {
    "paper": [project("config/paper.yaml")],
    "measurements": [
        measurement_file(network, *pair, setting)
        for network in NETWORKS
        for setting in measured_settings(network)
        for pair in CONTENDERS
    ],
    "policies": [
        policy_file(network, *pair) for network in NETWORKS for pair in CHOICES
    ],
    "accuracy": [f"{RESULTS}/accuracy.csv"],
    "quantization": expand(f"{RESULTS}/quantization/{{network}}.csv", network=NETWORKS),
    "search": [
        f"{RESULTS}/search/{network}/{scheme}-{packing}.csv"
        for network in NETWORKS
        for scheme, packing in SEARCHES
    ],
    "profile": [f"{RESULTS}/profile.json"],
    "published": [f"{RESULTS}/published-sets.csv"],
    **{
        kind: files if study in STUDIES else []
        for kind, study, files in (
            (
                "multiplication",
                "multiplication",
                [f"{RESULTS}/multiplication.csv"],
            ),
            ("sensitivity", "sensitivity", [f"{RESULTS}/sensitivity.csv"]),
            (
                "repeated_queries",
                "queries",
                [f"{RESULTS}/repeated-queries.json"],
            ),
            (
                "wraps",
                "wraps",
                [f"{RESULTS}/wraps/{network}.csv" for network in TOLERANCE_NETWORKS],
            ),
            (
                "sampling",
                "sampling",
                [f"{RESULTS}/sampling/{network}.csv" for network in SAMPLING_NETWORKS],
            ),
            (
                "tolerance",
                "tolerance",
                [
                    f"{RESULTS}/tolerance/{network}-{packing}.csv"
                    for network in TOLERANCE_NETWORKS
                    for packing in config["run"]["packings"]
                ],
            ),
            (
                "comparison",
                "strategies",
                COMPARISONS,
            ),
        )
    },
}
# What the experiments make beside their tables.
STUDIED = [
    *([rules.parameters_table.output] if "ablation" in STUDIES else []),
    *([rules.search_comparison.output] if "strategies" in STUDIES else []),
    *([rules.latency_comparison.output] if "latency" in STUDIES else []),
]

TABLES = ["table1", "table2", "table3"]
FIGURES = [
    "breakdown",
    *(
        ["network-settings"]
        if any(len(measured_settings(n)) > 1 for n in NETWORKS)
        else []
    ),
    *expand("parameters-{network}", network=NETWORKS),
    *[
        f"search-{network}-{scheme}-{packing}"
        for network in NETWORKS
        for scheme, packing in SEARCHES
    ],
    *[name for name in ("multiplication", "sensitivity") if name in STUDIES],
]


rule tables:
    input:
        paper=project("config/paper.yaml"),
        measurements=EVIDENCE["measurements"],
        policies=EVIDENCE["policies"],
        accuracy=EVIDENCE["accuracy"],
        published=EVIDENCE["published"],
    output:
        report(
            expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
            caption="captions/tables.rst",
            category="Tables",
        ),
        expand(
            f"{RESULTS}/tables/{{table}}.{{format}}",
            table=TABLES,
            format=["md", "tex"],
        ),
        parameters=report(
            f"{RESULTS}/tables/parameters.csv",
            caption="captions/parameters_csv.rst",
            category="Tables",
            labels={"table": "parameters per layer"},
        ),
    log:
        f"{RESULTS}/logs/tables.log",
    resources:
        mem_mb=500,
    params:
        library=library("tables.py"),
    script:
        "../scripts/tables.py"


rule figures:
    input:
        **{
            kind: EVIDENCE[kind]
            for kind in (
                "measurements",
                "policies",
                "quantization",
                "search",
                "multiplication",
                "sensitivity",
            )
        },
    output:
        report(
            expand(f"{RESULTS}/figures/{{figure}}.svg", figure=FIGURES),
            caption="captions/figures.rst",
            category="Figures",
        ),
        expand(
            f"{RESULTS}/figures/{{figure}}.{{format}}",
            figure=FIGURES,
            format=["png", "pdf"],
        ),
    log:
        f"{RESULTS}/logs/figures.log",
    resources:
        mem_mb=1000,
    params:
        library=library("figures.py"),
    script:
        "../scripts/figures.py"


rule claims:
    input:
        **EVIDENCE,
    output:
        table=report(
            f"{RESULTS}/claims.csv",
            caption="captions/claims.rst",
            category="Tables",
            labels={"table": "claims of the paper"},
        ),
        markdown=f"{RESULTS}/claims.md",
        latex=f"{RESULTS}/claims.tex",
    log:
        f"{RESULTS}/logs/claims.log",
    resources:
        mem_mb=500,
    params:
        library=library("claims.py"),
        study=config["study"],
        configfile=STUDY_CONFIG,
        kinds=list(EVIDENCE),
    script:
        "../scripts/claims.py"


rule report:
    input:
        **EVIDENCE,
        template=project("scripts/autoprivacy/report/template.html.j2"),
        claims=rules.claims.output.table,
        tables=rules.tables.output,
        figures=rules.figures.output,
        studied=STUDIED,
    output:
        report(
            f"{RESULTS}/report.html",
            caption="captions/report.rst",
            category="Report",
            labels={"page": "the study on one page"},
        ),
    log:
        f"{RESULTS}/logs/report.log",
    resources:
        mem_mb=500,
    params:
        library=library("report.py"),
        study=config["study"],
    script:
        "../scripts/report.py"
