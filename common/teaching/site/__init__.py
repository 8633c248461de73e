"""The site: static pages that work from a folder, without a net and without a server.

`build` makes them of the sources, the table and the committed measurements, without a framework: both sources line
against line, a picture and the costs of each variant and of any two, the mistakes with what each does, layer by layer,
lessons, exercises with answers for teachers, and other people's nets as `diagnose` reads them. Made twice, the pages
are the same to the byte.
"""

from common.teaching.site.build import build

__all__ = ["build"]
