# Private inference between a client and a server process, all schemes of a network interleaved image by image.
# in: policies/<network>/*.json, the deployed integer networks, datasets/<dataset>.npz
# out: measurements/<network>/<scheme>-<packing>-<network setting>.json


rule measure:
    input:
        dataset=prepared_dataset,
        policies=lambda w: [policy_file(w.network, *pair) for pair in CONTENDERS],
        networks=lambda w: [deployed_network(w.network, *pair) for pair in CONTENDERS],
    output:
        [measurement_file("{network}", *pair, "{setting}") for pair in CONTENDERS],
    log:
        f"{RESULTS}/logs/measure-{{network}}-{{setting}}.log",
    # all cores: the two parties have one each, and nothing else runs beside a measurement
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=6000,
    params:
        # the two programs run as processes of their own, so they are named beside the script
        library=library(
            "measure.py",
            "autoprivacy/protocol/client.py",
            "autoprivacy/protocol/server.py",
        ),
        contenders=CONTENDERS,
        measure={
            key: value
            for key, value in config["measure"].items()
            if key not in ("network_settings", "linked_networks", "leave_out")
        },
        setting=lambda w: config["network_settings"][w.setting],
        seed=config["seed"],
    script:
        "../scripts/measure.py"
