"""report.html: one self-contained page that says what a dataset holds and how it came about.

Vocabulary: a *panel* is what one section of the page shows, made by one function from the :class:`Folder`; None where
the stage behind it has not run. Figures are inline SVG in the page's own colours, rasters are embedded images: no
script, nothing to load, light and dark, screen and paper.
"""

from geofm_pipeline.report.render import render_report
from geofm_pipeline.report.summary import diagnostics

__all__ = ["diagnostics", "render_report"]
