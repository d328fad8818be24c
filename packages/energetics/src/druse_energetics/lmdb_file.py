"""Read-only access to a file of the Lightning Memory-Mapped Database (LMDB), made by nobody knows whom.

LMDB's own library follows page numbers and offsets of the file without checking them: a damaged or malicious file can
stop the process. This reader takes every number for what it is, a claim, and checks it. It reads what one needs to list
a database: meta pages, branch and leaf pages, overflow pages (little-endian files of 64-bit machines, format 1; layout:
``mdb.c`` and ``MDB_meta``, ``MDB_db``, ``MDB_node`` therein, LMDB 0.9).
"""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

MAGIC = 0xBEEFC0DE
_HEADER = struct.Struct("<QHHHH")  # page number, padding, flags, lower, upper (or, of overflow pages, their number)
_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_TREE = struct.Struct("<IHHQQQQQ")  # padding (page size), flags, depth, branch, leaf and overflow pages, entries, root
_LAST = struct.Struct("<QQ")  # last page, transaction
_NODE = struct.Struct("<HHHH")  # low and high part of a size (or page number), flags, length of the key
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_BIG, _SUBTREE, _DUPLICATES = 0x01, 0x02, 0x04
_EMPTY = 2**64 - 1
_PAGE_SIZES = tuple(2**k for k in range(9, 17))


class LmdbFile:
    """The main database of an LMDB file, as pairs of keys and values. Use it as a context manager.

    Args:
        path: the data file itself (``subdir=False``), complete.

    Raises:
        ValueError: if it is no such file or is cut off.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise ValueError(f"it is no LMDB file ({error})") from error
        try:
            self._page_size, self._depth, self._entries, self._root = self._newest_meta()
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> "LmdbFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of pairs, as the file claims."""
        return self._entries

    def close(self) -> None:
        """Release the file."""
        self._bytes.close()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of the keys.

        Raises:
            ValueError: where the tree of pages is damaged, or holds fewer or more pairs than promised.
        """
        found = 0
        waiting = [] if self._root == _EMPTY else [(self._root, 1)]
        seen: set[int] = set()
        while waiting:
            number, depth = waiting.pop()
            if number in seen or depth > self._depth:
                raise ValueError(f"its page {number} occurs twice or too deep: fetch the file again")
            seen.add(number)
            begin, flags, nodes = self._page(number)
            if flags & _BRANCH:
                children = []
                for offset in nodes:
                    low, high, top, _ = self._node(begin + offset)
                    children.append((low | high << 16 | top << 32, depth + 1))
                waiting += reversed(children)
            elif flags & _LEAF:
                for offset in nodes:
                    found += 1
                    yield self._pair(begin + offset)
            else:
                raise ValueError(f"its page {number} is neither a branch nor a leaf: fetch the file again")
        if found != self._entries:
            raise ValueError(f"it holds {found} of {self._entries} entries: fetch the file again")

    def _newest_meta(self) -> tuple[int, int, int, int]:
        """Page size, depth, number of entries and root of the last transaction."""
        metas = [self._meta(0)]
        metas.append(self._meta(metas[0][0]))
        if metas[0][0] != metas[1][0]:
            raise ValueError("its two meta pages differ in the size of a page: fetch the file again")
        page_size, depth, entries, root, last, _ = max(metas, key=lambda meta: meta[-1])
        if (last + 1) * page_size > len(self._bytes):
            raise ValueError(f"{len(self._bytes)} of its {(last + 1) * page_size} bytes are there: fetch it again")
        return page_size, depth, entries, root

    def _meta(self, begin: int) -> tuple[int, int, int, int, int, int]:
        position = begin + _HEADER.size
        magic, version, _, _ = self._unpack(_META, position)
        if magic != MAGIC:
            raise ValueError("it is no LMDB file of a 64-bit little-endian machine: fetch it again")
        if version & 0xFFFF != 1:
            raise ValueError(f"its LMDB format is {version}, only 1 is known: write it again with LMDB 0.9")
        position += _META.size
        page_size = self._unpack(_TREE, position)[0]
        flags, depth, *_, entries, root = self._unpack(_TREE, position + _TREE.size)[1:]
        last, transaction = self._unpack(_LAST, position + 2 * _TREE.size)
        if page_size not in _PAGE_SIZES:
            raise ValueError(f"its pages have {page_size} bytes, which is no size of a page: fetch the file again")
        if flags & _DUPLICATES:
            raise ValueError("it holds several values for a key, which no reference does")
        return page_size, depth, entries, root, last, transaction

    def _page(self, number: int) -> tuple[int, int, tuple[int, ...]]:
        """First byte, flags and offsets of the nodes."""
        begin = number * self._page_size
        claimed, _, flags, lower, _ = self._unpack(_HEADER, begin)
        if claimed != number or not _HEADER.size <= lower <= self._page_size:
            raise ValueError(f"its page {number} is damaged: fetch the file again")
        nodes = self._unpack(struct.Struct(f"<{(lower - _HEADER.size) // 2}H"), begin + _HEADER.size)
        if any(offset >= self._page_size for offset in nodes):
            raise ValueError(f"its page {number} is damaged: fetch the file again")
        return begin, flags, nodes

    def _node(self, position: int) -> tuple[int, int, int, int]:
        return self._unpack(_NODE, position)

    def _pair(self, position: int) -> tuple[bytes, bytes]:
        low, high, flags, key_length = self._node(position)
        size = low | high << 16
        if flags & (_SUBTREE | _DUPLICATES):
            raise ValueError("it holds databases inside of its database, which no reference does")
        position += _NODE.size
        key = self._slice(position, key_length)
        position += key_length
        if flags & _BIG:
            (number,) = self._unpack(struct.Struct("<Q"), position)
            begin = number * self._page_size
            if not self._unpack(_HEADER, begin)[2] & _OVERFLOW:
                raise ValueError(f"its page {number} holds no long value: fetch the file again")
            position = begin + _HEADER.size
        return key, self._slice(position, size)

    def _slice(self, begin: int, size: int) -> bytes:
        if begin + size > len(self._bytes):
            raise ValueError("a value reaches beyond its end: fetch the file again")
        return self._bytes[begin : begin + size]

    def _unpack(self, layout: struct.Struct, position: int) -> tuple:
        if position + layout.size > len(self._bytes):
            raise ValueError("a page lies beyond its end: fetch the file again")
        return layout.unpack_from(self._bytes, position)
