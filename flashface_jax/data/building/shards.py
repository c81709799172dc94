"""Files of the dataset's records."""

from collections.abc import Iterable
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordWriter

FORM = "group_size:1,uncompressed"  # any record at once; JPEGs are compressed already


def write_shard(path: Path, records: Iterable[bytes]) -> None:
    """Write one ArrayRecord file.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    writer = ArrayRecordWriter(str(path), FORM)
    try:
        for record in records:
            writer.write(record)
    finally:
        _close(writer)


def _close(writer: ArrayRecordWriter) -> None:
    try:
        writer.close()  # which is where a write that failed is told of
    except RuntimeError as error:
        raise OSError(str(error)) from error
