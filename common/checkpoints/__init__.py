"""Files of weights, whoever wrote them: recognised, read, checked, and written as any of them.

In comes a file or a folder of any library; it is read without running anything of it, and recognised as a row of the
table. Out come the row and its canonical weights, or another library's file, which was read again and compared.
"""
