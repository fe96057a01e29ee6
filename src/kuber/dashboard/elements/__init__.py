"""Building blocks of the pages: tables, native controls, dialogs, text."""
