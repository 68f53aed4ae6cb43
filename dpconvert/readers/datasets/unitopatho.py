"""UniToPatho: one folder per class, and one table per set beside them."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.table import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    rows = {"train": ["image_id,top_label,top_label_name"], "test": ["image_id,top_label,top_label_name"]}
    for look, label in enumerate(tree.manifest.classes):
        for number in range(5):
            slide = f"{57 + 10 * look + number}-B2-{label.replace('.', '')}.ndpi_ROI__mpp0.44_reg000_crop"
            name = f"{slide}_sk00000_({6753 + number},14365,1812,1812).png"
            tree.save(f"unitopath-public/800/{label}/{name}", tree.coarse(300, 300, look))
            rows["test" if number == 4 else "train"].append(f'"{name}",{look},{label}')
    for of, lines in rows.items():
        tree.write(f"unitopath-public/800/{of}.csv", "\n".join(lines) + "\n")
