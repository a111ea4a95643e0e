"""The same tests on every form in which Portway is given away."""
