"""A DICOM node: receives studies, grades each when its arrival has settled, sends SR and SC back.

receiver → spool (images on disk) → worker → spool (outbox on disk) → sender. Every step can be interrupted at
any point: what is on disk is all that the next run needs.
"""
