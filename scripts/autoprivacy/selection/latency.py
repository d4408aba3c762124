"""The latency of a linear layer: operation counts times measured seconds, bytes over the link."""

from __future__ import annotations

from autoprivacy.he.bfv.cipher import message_bytes
from autoprivacy.he.bfv.flood import WIDEST_GAUSSIAN
from autoprivacy.he.bfv.reply_bits import reply_bytes
from autoprivacy.he.packing.plan import Workload
from autoprivacy.he.parameters.parameter_set import ParameterSet, ReplyBits
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.link import Link


def operation_counts(workload: Workload, flood: float = 0.0) -> dict[str, int]:
    """How often each operation of the profile happens in one evaluation of the layer.

    Args:
        workload: of the layer as it is packed.
        flood: standard deviation of its replies' flood.
    """
    return {
        "calls": workload.evaluations,
        "encrypt": workload.input_ciphertexts,
        "load": workload.input_ciphertexts,
        "arrange": workload.input_ciphertexts,
        "product": workload.products,
        "sum": workload.sums,
        "reply": workload.output_ciphertexts,
        "wide_flood": workload.output_ciphertexts if flood > WIDEST_GAUSSIAN else 0,
        "decrypt": workload.output_ciphertexts,
        "encoding": workload.encodings,
        "rotation": workload.rotations,
    }


def layer_cost(
    workload: Workload,
    parameters: ParameterSet,
    bits: ReplyBits,
    profile: OperationProfile,
    link: Link,
    flood: float = 0.0,
) -> dict[str, float]:
    """What one evaluation of a layer takes.

    Args:
        workload, flood: as in `operation_counts`.
        parameters: the layer's set.
        bits: what its reply is sent in.
        profile: seconds of every operation.
        link: what the ciphertexts go over.

    Returns:
        The operation counts by name; bytes_up and bytes_down of ciphertexts as the cipher packs them;
        compute_seconds of both parties, transfer_seconds (one round trip included) and their sum latency_seconds.

    Raises:
        UserError: the profile lacks an operation at the parameters' n and primes.
    """
    counts = operation_counts(workload, flood)
    needed = [operation for operation, count in counts.items() if count]
    seconds = profile.seconds(parameters, needed)
    bytes_up = message_bytes(parameters, workload.input_ciphertexts)
    bytes_down = reply_bytes(workload.degree, workload.output_ciphertexts, workload.reply_coefficients, bits)
    compute = sum(counts[operation] * seconds[operation] for operation in needed)
    transfer = link.seconds(bytes_up + bytes_down) + link.round_trip_seconds
    return {
        **counts,
        "bytes_up": bytes_up,
        "bytes_down": bytes_down,
        "compute_seconds": compute,
        "transfer_seconds": transfer,
        "latency_seconds": compute + transfer,
    }
