"""Finished tasks in, one self-contained HTML page out: cards, counts, pictures, sizes, failures.

`tasks` reads a task, `histogram` draws numbers, `page` writes HTML. Pictures are of the training and
validation sets: nobody looks at a test set by accident.
"""

from dpconvert.tasks.gallery.page import write_page
from dpconvert.tasks.gallery.tasks import Gallery, Seen, Unfinished, read_tasks

__all__ = ["Gallery", "Seen", "Unfinished", "read_tasks", "write_page"]
