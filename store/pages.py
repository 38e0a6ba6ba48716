"""Reads an LMDB data file without LMDB, believing nothing it finds there.

LMDB maps its file and trusts it: pages that are cut off or overwritten can kill the process that looks at them. This
reader checks every offset, length and page number before it follows it, notes what is wrong and goes on with what is
not, so `dragoman store check` can say what is damaged and `export` can save the rest. It reads stores at rest only,
written on a machine of the same byte order.

A data file is a sequence of pages. The first two are meta pages, the newer of which names the roots of two B+trees: the
free pages, and the tables by name, whose values are again roots. A page begins with its own number (8), padding (2),
flags (2) and where its free space begins and ends (2, 2), then come the offsets of its nodes (2 each). A node is four
half words (value length or page number in the first two or three, flags, key length) and the key and value. Values too
long for that are in runs of overflow pages (lib/mdb.c of LMDB 0.9: MDB_page, MDB_node, MDB_db, MDB_meta).
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

from store.journal import StoreDamaged, StoreError
from store.records import ADVICE, LATER_TABLES, TABLES

_META: Final = Struct("=HH4xII16x")  # from byte 8 of the page: padding, flags; then magic, version, address, map size
_TREE: Final = Struct("=IHHQQQQQ")  # padding (in the first: page size), flags, depth, 3 page counts, records, root
_META_END: Final = Struct("=QQ")  # last page, transaction
_PAGE: Final = Struct("=QHHHH")
_NODE: Final = Struct("=HHHH")
_LONG: Final = Struct("=Q")

_HEADER: Final = 16
_BRANCH: Final = 1
_LEAF: Final = 2
_OVERFLOW: Final = 4
_META_PAGE: Final = 8
_KIND: Final = 15
_MAGIC: Final = 0xBEEFC0DE
_NO_PAGE: Final = (1 << 64) - 1
_IN_OVERFLOW: Final = 1
_IS_TREE: Final = 2
_DEEPEST: Final = 32


class Meta:
    """A meta page."""

    __slots__ = ("page_size", "map_size", "free_root", "tables_root", "last_page", "transaction")

    def __init__(self, page: bytes) -> None:
        """Raises ValueError when it is none."""
        if len(page) < _HEADER + 136:
            raise ValueError("it is shorter than LMDB's header")
        _, flags, magic, version = _META.unpack_from(page, 8)
        if magic != _MAGIC or not flags & _META_PAGE:
            raise ValueError("it is not an LMDB file")
        if version != 1:
            raise ValueError(f"it is an LMDB file of version {version}, not 1")
        self.map_size: int = _LONG.unpack_from(page, 32)[0]
        self.page_size: int = _TREE.unpack_from(page, 40)[0]
        self.free_root: int = _TREE.unpack_from(page, 40)[7]
        self.tables_root: int = _TREE.unpack_from(page, 88)[7]
        self.last_page: int = _META_END.unpack_from(page, 136)[0]
        self.transaction: int = _META_END.unpack_from(page, 136)[1]
        if self.page_size not in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536):
            raise ValueError(f"its page size is {self.page_size}")


class PageFile:
    """An LMDB data file at rest, opened for reading; `problem` is told, in a sentence, of all that is wrong with it.

    Raises: StoreError when it cannot be opened, StoreDamaged when no meta page can be read.
    """

    def __init__(self, data: pathlib.Path, problem: Callable[[str], None]) -> None:
        self.problem = problem
        try:
            self.file = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{data} cannot be read: {error.strerror}") from None
        self.size = os.fstat(self.file).st_size
        try:
            self.meta = self._newest_meta(data)
        except BaseException:
            os.close(self.file)
            raise
        self.pages: int = self.meta.last_page + 1
        self.whole_pages = min(self.pages, self.size // self.meta.page_size)
        self.owner = 0
        self.seen = bytearray()  # by the walk through a tree that is going on
        self.owners = bytearray(self.whole_pages)  # 1 for the free pages, 2 for the list of tables, 3... for tables

    def close(self) -> None:
        os.close(self.file)

    def _newest_meta(self, data: pathlib.Path) -> Meta:
        found: list[Meta] = []
        wrong = ""
        for size in (4096, 512, 1024, 2048, 8192, 16384, 32768, 65536):
            metas: list[Meta] = []
            for at in (0, size):
                try:
                    metas.append(Meta(os.pread(self.file, 512, at)))
                except ValueError as error:
                    wrong = wrong or str(error)
            metas = [meta for meta in metas if meta.page_size == size]
            if len(metas) > len(found):
                found = metas
        if not found:
            raise StoreDamaged(f"{data} is not a store, or is damaged at its very beginning: {wrong}. {ADVICE}")
        if len(found) == 1:
            self.problem("one of the two meta pages cannot be read")
        return max(found, key=lambda meta: meta.transaction)

    def shorter(self) -> bool:
        """Does the file end before its last page? It may, when the pages that it lacks are free ones."""
        return self.size < self.pages * self.meta.page_size

    def tables(self) -> dict[bytes, int]:
        """The roots of the tables by name (an empty table's is _NO_PAGE)."""
        roots: dict[bytes, int] = {}
        self.counts: dict[bytes, int] = {}
        for name, value, flags in self._walk(self.meta.tables_root, 2, True, "the list of tables"):
            if flags & _IS_TREE and len(value) == _TREE.size:
                roots[name] = _TREE.unpack(value)[7]
                self.counts[name] = _TREE.unpack(value)[6]
            else:
                self.problem(f"the list of tables has something else in it: {name!r}")
        for name in TABLES:
            if name not in roots and name not in LATER_TABLES:
                self.problem(f"the table {name.decode()} is missing")
        return roots

    def table(self, roots: dict[bytes, int], name: bytes, values: bool = True) -> Iterator[tuple[bytes, bytes]]:
        """The table's records that can be read, in order of their keys; without `values` long values are left out."""
        if name not in roots:
            return
        last = b""
        owner = 3 + sorted(roots).index(name) % 250
        for key, value, _ in self._walk(roots[name], owner, values, f"the table {name.decode('ascii', 'replace')}"):
            if last and key <= last:
                self.problem(f"the table {name.decode()} is out of order at key {key.hex()}")
                continue
            last = key
            yield key, value

    def count(self, name: bytes) -> int:
        """How many records the file says a table has."""
        return self.counts.get(name, 0)

    def in_use(self) -> int:
        """Bytes of the file that are not free, of what the file says."""
        free = 0
        for _, value, _ in self._walk(self.meta.free_root, 1, True, "the list of free pages"):
            free += _LONG.unpack_from(value)[0] if len(value) >= 8 else 0
        return max(0, self.pages - free) * self.meta.page_size

    def look_at(self, roots: dict[bytes, int]) -> None:
        """Tell the problems of the roots of all trees, and of nothing below them."""
        for root in [self.meta.free_root, *roots.values()]:
            if root != _NO_PAGE:
                self.seen = bytearray(self.whole_pages)
                self._page(root, "a table's root")

    def look_through(self, roots: dict[bytes, int]) -> None:
        """Tell the problems of all trees."""
        for _ in self._walk(self.meta.free_root, 1, False, "the list of free pages"):
            pass
        for name in roots:
            for _ in self.table(roots, name, values=False):
                pass

    def _walk(self, root: int, owner: int, values: bool, what: str) -> Iterator[tuple[bytes, bytes, int]]:
        """(key, value, flags) of all leaves of a tree. One walk at a time."""
        self.seen = bytearray(self.whole_pages)
        self.owner = owner
        return self._tree(root, values, what, 0)

    def _page(self, number: int, what: str) -> bytes | None:
        """The branch or leaf page of that number, with a header that holds; None (and a problem told) without."""
        size = self.meta.page_size
        if not 2 <= number < self.pages:
            self.problem(f"{what} names page {number}, and there is none of that number")
            return None
        page = os.pread(self.file, size, number * size)
        if len(page) < size:
            self.problem(f"page {number} of {what} is cut off: the file is too short")
            return None
        own, _, flags, lower, upper = _PAGE.unpack_from(page)
        if own != number or flags & _KIND not in (_BRANCH, _LEAF) or not _HEADER <= lower <= upper <= size:
            self.problem(f"page {number} of {what} is damaged")
            return None
        if self.seen[number] or self.owners[number] not in (0, self.owner):
            self.problem(f"page {number} of {what} is in use twice")
            return None
        self.seen[number] = 1
        self.owners[number] = self.owner
        return page

    def _tree(self, root: int, values: bool, what: str, depth: int) -> Iterator[tuple[bytes, bytes, int]]:
        """(key, value, flags) of all leaves below a page."""
        if root == _NO_PAGE:
            return
        if depth > _DEEPEST:
            self.problem(f"{what} is deeper than {_DEEPEST} pages")
            return
        page = self._page(root, what)
        if page is None:
            return
        _, _, kind, lower, _ = _PAGE.unpack_from(page)
        for at in range(_HEADER, lower, 2):
            node = page[at] | page[at + 1] << 8 if _LITTLE else page[at] << 8 | page[at + 1]
            if not lower <= node <= len(page) - 8:
                self.problem(f"page {root} of {what} has a record outside the page")
                continue
            low, high, flags, key_length = _NODE.unpack_from(page, node)
            start = node + 8 + key_length
            if start > len(page):
                self.problem(f"page {root} of {what} has a record that is longer than the page")
            elif kind & _BRANCH:
                yield from self._tree(low | high << 16 | flags << 32, values, what, depth + 1)
            else:
                value = self._value(page, start, low | high << 16, flags, values, what)
                if value is not None:
                    yield page[node + 8:start], value, flags

    def _value(self, page: bytes, at: int, length: int, flags: int, values: bool, what: str) -> bytes | None:
        if not flags & _IN_OVERFLOW:
            if at + length <= len(page):
                return page[at:at + length]
            self.problem(f"a value in {what} is longer than its page")
            return None
        if at + 8 > len(page):
            self.problem(f"a value in {what} names no page")
            return None
        number: int = _LONG.unpack_from(page, at)[0]
        size = self.meta.page_size
        count = (_HEADER + length + size - 1) // size
        if not 2 <= number <= self.pages - count or (number + count) * size > self.size:
            self.problem(f"a long value in {what} is outside the file")
            return None
        header = os.pread(self.file, _HEADER, number * size)
        own, _, kind, low, high = _PAGE.unpack(header)
        if own != number or kind & _KIND != _OVERFLOW or (low | high << 16 if _LITTLE else low << 16 | high) < count:
            self.problem(f"page {number} of {what}, a long value, is damaged")
            return None
        return os.pread(self.file, length, number * size + _HEADER) if values else b""


_LITTLE: Final = _PAGE.pack(1, 0, 0, 0, 0)[0] == 1


def refuse_damaged(data: pathlib.Path) -> None:
    """Look at a data file before LMDB maps it: the meta pages, the roots of the tables, and the file's length.

    LMDB leaves out free pages at the end; a file that is shorter than it says is read as a whole to see whether it
    lacks others, and made as long as it says, since LMDB dies of looking behind the end of a file. Raises StoreDamaged.
    """
    wrong: list[str] = []
    found = PageFile(data, wrong.append)
    try:
        roots = found.tables()
        if found.shorter():
            found.look_through(roots)
        else:
            found.look_at(roots)
        if wrong:
            raise StoreDamaged(f"{data} is damaged: {wrong[0]}. {ADVICE}")
        length = found.pages * found.meta.page_size if found.shorter() else 0
    finally:
        found.close()
    if length:
        os.truncate(data, length)
