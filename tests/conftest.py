"""What holds for all tests."""

import signal

# A script's background job ignores interrupts and so does what it starts, which would not hear those that tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)
