"""The DELPHI protocol between two processes: channel, shares, client, server, measurement."""
