# AutoPrivacy: trained network -> HE parameters per layer -> measured private inference -> tables, figures, report.
# `snakemake -j8` runs the study of config/config.yaml; `--configfile config/quick.yaml` the one of a few minutes on committed data.


configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/networks.smk"
include: "rules/selection.smk"
include: "rules/parameters.smk"
include: "rules/measure.smk"
include: "rules/studies.smk"
include: "rules/report.smk"


# what the rules read of the library's files, for the next call
SOURCES.save()


rule all:
    default_target: True
    input:
        rules.tables.output,
        rules.figures.output,
        rules.claims.output,
        rules.report.output,
