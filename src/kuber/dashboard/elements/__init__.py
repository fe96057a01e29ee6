"""What the pages are put together of: a table, a moment in time, native controls, and charts."""
