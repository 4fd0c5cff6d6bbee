"""Data sets from the original Amazon files of one category: reading them is `raw`, making data sets `prepare`."""
