"""The report's words on the figures of a study's experiments."""

# Figures of experiments by the beginning of their name: title, what to know of it, its table.
EXPERIMENTS = {
    "multiplication": (
        "latency of an HE multiplication over n and q (the paper's Figure 3)",
        "A ciphertext times a plaintext in coefficient form, CPU seconds of one thread, medians; on the right "
        "SEAL's product of two ciphertexts.",
        "multiplication.csv",
    ),
    "sensitivity": (
        "what n and q depend on (the paper's Figure 4)",
        "One trained 3x3 convolution: other kernel sizes draw from its weights, other bit widths scale weights and "
        "inputs. Sets are those of least predicted latency, so q need not be the smallest. "
        "Bars in (d) reach from the smallest to the largest q of a scheme's layers.",
        "sensitivity.csv",
    ),
    "ablation-": (
        "what each idea of parameter selection is worth",
        "Each step has one change to the step before it; latency is predicted.",
        "tables/ablation.csv",
    ),
    "tolerance-": (
        "accuracy against error rate and tau, before finetuning",
        "Paired differences to the undisturbed network with 95% intervals; below, errors in one layer alone.",
        "tolerance/{}.csv",
    ),
    "search-comparison": (
        "search strategies beside each other",
        "Mean over seeds; bands from the lowest to the highest.",
        "tables/search-comparison.csv",
    ),
    "sampling-": (
        "samples that an error rate takes",
        "Root mean square of the relative error of each method.",
        "sampling/{}.csv",
    ),
    "latency": (
        "predicted against measured latency of every linear layer",
        "CPU seconds of both parties under darl's sets.",
        "latency/layers.csv",
    ),
}
