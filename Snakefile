# AutoPrivacy: trained network -> HE parameters per layer -> measured private inference -> tables, figures, report.
# `snakemake -j8` runs the study of config/config.yaml, which takes hours; `--configfile config/quick.yaml` one of minutes
# on committed data. Each config says under `takes` how long its study takes.


from snakemake.utils import min_version

min_version("9.27")

# of the working directory, or of this checkout where that has none
STUDY = "config/config.yaml"
if not os.path.exists(STUDY):
    STUDY = os.path.join(workflow.basedir, STUDY)


configfile: STUDY


report: "rules/captions/workflow.rst"


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
