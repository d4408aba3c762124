# Private inference between a client and a server process, all schemes of a network interleaved image by image.
# in: policies/<network>/*.json, the deployed integer networks, datasets/<dataset>.npz
# out: measurements/<network>/<scheme>-<packing>.json


rule measure:
    input:
        # the two programs run as processes of their own, so their library files are named beside the script's
        library=library("measure.py")
        + library("autoprivacy/protocol/client.py")
        + library("autoprivacy/protocol/server.py"),
        dataset=prepared_dataset,
        policies=lambda w: [policy_file(w.network, *pair) for pair in CONTENDERS],
        networks=lambda w: [
            deployed_network(w.network, scheme) for scheme, _ in CONTENDERS
        ],
    output:
        [measurement_file("{network}", *pair) for pair in CONTENDERS],
    log:
        f"{RESULTS}/logs/measure-{{network}}.log",
    conda:
        "../environment.yml"
    # all cores: the two parties have one each, and nothing else runs beside a measurement
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=6000,
    params:
        contenders=CONTENDERS,
        measure=config["measure"],
    script:
        "../scripts/measure.py"
