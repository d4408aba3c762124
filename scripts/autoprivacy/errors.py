"""The error that means 'the user can mend this': scripts print its message alone, without a traceback."""


class UserError(Exception):
    """A mistake in the input (config, file, network): says what happened, where, got, allowed, what to do."""
