"""Reports: tables of many runs, and one offline page of results."""
