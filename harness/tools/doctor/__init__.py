"""`bm3 doctor`: what can be run and measured on this machine, and what to do about the rest."""
