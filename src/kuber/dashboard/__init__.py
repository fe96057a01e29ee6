"""The hub as web pages: who is there, what they know, who learnt from whom. Fed by the registry's events alone."""
