"""What the kernel of a node holds, from bytes to records: connection tracking entries and Service rules.

Pure: nothing is opened, started or waited for, and nothing is judged. Dumps are tokenised, never read by position;
tokens that are not known are kept; and every parser says whether what it read was all there was, and how it knows.
"""
