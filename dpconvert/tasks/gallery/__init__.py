"""Shows finished tasks on a self-contained HTML page: cards, counts, images, sizes, failures.

`tasks` reads a task, `colours` scores what its colours alone reveal, `histogram` draws numbers, `page` writes HTML.
Images come from the training and validation sets, so that nobody sees a test set by accident.
"""

from dpconvert.tasks.gallery.page import write_page
from dpconvert.tasks.gallery.tasks import Gallery, TaskSummary, Unfinished, read_tasks

__all__ = ["Gallery", "TaskSummary", "Unfinished", "read_tasks", "write_page"]
