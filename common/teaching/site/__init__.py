"""The site: static pages that work from a folder, without a net and without a server.

`build` makes them of the sources, the table and the committed measurements, without a framework: both sources line
against line, a picture and the costs of each variant, the mistakes with what each does, layer by layer. Made twice, the
pages are the same to the byte.
"""

from common.teaching.site.build import build

__all__ = ["build"]
