"""A key holder with the SEAL context that drew its secret, for a second opinion."""

from autoprivacy.he.bfv.cipher import ClientCipher
from autoprivacy.he.bfv.seal_context import SealContext
from autoprivacy.he.parameters.parameter_set import ParameterSet


class CheckedClient(ClientCipher):
    """As `ClientCipher`; `seal` has the same keys."""

    def __init__(self, parameters: ParameterSet) -> None:
        self.seal = SealContext(parameters)
        super().__init__(parameters, seal=self.seal)
