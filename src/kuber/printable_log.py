"""Filter of the logger `kuber`, whose warnings may quote what other entities wrote."""

import logging

from kuber.domain.printable_text import printable


class PrintableFilter(logging.Filter):
    """Writes characters that are not printable as escapes: no record controls a terminal or forges a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record's message if necessary; pass every record."""
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = printable(message), None
        return True
