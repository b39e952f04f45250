"""Work in a process forked from this one."""

import os


def in_child(function):
    """Run a function in a process of its own; return the process's number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        function()
        code = 0
    finally:
        os._exit(code)
