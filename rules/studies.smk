# Studies of decryption errors that no other stage needs: made when asked for by a figure's name.
# in: networks/<network>.npz, policies/<network>/darl-<packing>.json, datasets/<dataset>.npz
# out: sampling/<network>.csv, tolerance/<network>-<packing>.csv, a figure of each


rule sampling_study:
    input:
        network=f"{RESULTS}/networks/{{network}}.npz",
        policy=lambda w: policy_file(w.network, "darl", "coefficient"),
    output:
        table=f"{RESULTS}/sampling/{{network}}.csv",
        figures=multiext(f"{RESULTS}/figures/sampling-{{network}}", ".svg", ".png"),
    log:
        f"{RESULTS}/logs/sampling_study-{{network}}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=1000,
    params:
        library=library("sampling_study.py"),
        sampling=config["sampling"],
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
            f"{RESULTS}/figures/tolerance-{{network}}-{{packing}}", ".svg", ".png"
        ),
    log:
        f"{RESULTS}/logs/tolerance_study-{{network}}-{{packing}}.log",
    conda:
        "../environment.yml"
    threads: lambda wildcards: workflow.cores
    resources:
        mem_mb=3000,
    params:
        library=library("tolerance_study.py"),
        tolerance=config["tolerance"],
        seed=config["seed"],
        state=lambda w: state_folder(
            f"tolerance-{w.packing}", w.network, [config["tolerance"], config["seed"]]
        ),
    script:
        "../scripts/tolerance_study.py"
