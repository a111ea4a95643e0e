"""Portway: a gateway that exposes the servers of an intranet.

The layers, top to bottom; each imports only from those below it:

    cli          one file per verb
    machine      PID 1 of the VM image
    supervisor   the master, the workers, what they say to each other
    net          everything that owns a file descriptor
    policy       decides; `now` is an argument
    observe      reports: names, records, the log
    ruleset      what the operator wrote, and what is wrong with it
    values, problem, outcome
    program      how this process was started: from source, or frozen
"""

__version__ = "0.1.0"
