"""`bm3 pack`: stored runs with a report on them as one file of evidence, and whether such a file is as it was made."""
