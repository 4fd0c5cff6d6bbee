"""Data sets from the original Amazon 2014 files of one category: reading them is `raw`, making data sets `prepare`."""
