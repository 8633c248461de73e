"""What every floor uses and no net is in: frameworks found and loaded, memory, files written whole, tables of text.

In come names of packages, bytes and rows; out come modules, files and strings. It knows `errors` alone.
"""
